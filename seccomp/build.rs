//! Compiles the policies of the target architecture, so that the programs carry neither a JSON
//! parser nor a compiler and lose no time with them when they start.

#[path = "src/policy.rs"]
mod policy;

use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let arch = env::var("CARGO_CFG_TARGET_ARCH")?;
    let directory = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("policies").join(&arch);
    println!("cargo::rustc-env=PASTA_TARGET_ARCH={arch}");
    println!("cargo::rerun-if-changed={}", directory.display());
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/policy.rs");

    let read = |name: &str| fs::read_to_string(directory.join(name));
    let target = arch.as_str().try_into()?;
    let (shared, constants) = (read("shared.json")?, read("constants.json")?);
    let mut source = String::new();
    for role in ["supervisor", "monitor", "datapath"] {
        let program = policy::compile(&shared, &read(&format!("{role}.json"))?, &constants, target)
            .map_err(|error| format!("{role}.json of {arch}: {error}"))?;
        writeln!(source, "static {}: &[sock_filter] = &[", role.to_uppercase())?;
        for op in program {
            let (code, jt, jf, k) = (op.code, op.jt, op.jf, op.k);
            writeln!(source, "    sock_filter {{ code: {code}, jt: {jt}, jf: {jf}, k: {k} }},")?;
        }
        writeln!(source, "];")?;
    }
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("filters.rs"), source)?;
    Ok(())
}
