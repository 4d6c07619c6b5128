#![forbid(unsafe_code)]
//! [`Change`]: one transition of a family, for the log.

use crate::bind::{Binding, Reason};
use crate::desired::Wanted;
use pasta_ipc::types::Family;
use std::fmt;
use std::time::Duration;

/// One transition of a family; its text is what the log says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    text: String,
    reason: String,
}

impl Change {
    /// The transition from a binding and what was wanted under it to others, if there is any. `hold`
    /// is how long a lost template's configuration is kept.
    pub fn between(
        family: Family,
        before: (&Binding, Option<&Wanted>),
        after: (&Binding, Option<&Wanted>),
        reason: Option<Reason>,
        hold: Option<Duration>,
    ) -> Option<Self> {
        let ((old, had), (new, wants)) = (before, after);
        let still_held = |one: &Binding, other: &Binding| {
            matches!((one, other), (Binding::Held(..), Binding::Held(..))) && one.is_like(other)
        };
        if (old == new || still_held(old, new)) && had == wants {
            return None;
        }
        let reason = reason.map_or("configuration changed".to_owned(), |it| it.to_string());
        let text = match (old, new) {
            (_, Binding::Held(template, ..)) => {
                let until =
                    hold.map_or("kept".to_owned(), |it| format!("local in {} s", it.as_secs_f32()));
                format!("{family} held {}({}), {until}", template.name, template.index)
            }
            (_, Binding::Local | Binding::Off) => {
                format!("{family} {} -> local{}", state(old), via(wants))
            }
            (Binding::Bound(one), Binding::Bound(other)) if one.index == other.index => {
                let primary = if one.primary == other.primary {
                    format!("{}", other.primary)
                } else {
                    format!("primary {} -> {}", one.primary, other.primary)
                };
                format!("{family} bound {}({}): {primary}{}", other.name, other.index, via(wants))
            }
            (_, Binding::Bound(template)) => format!(
                "{family} {} -> bound {}({}): {}{}",
                state(old),
                template.name,
                template.index,
                primary(template.primary, wants),
                via(wants)
            ),
        };
        Some(Self { text, reason })
    }
}

impl Change {
    /// That the default route of a family, bound as in `binding`, is the users' and is left to them.
    pub fn left_alone(family: Family, binding: &Binding) -> Option<Self> {
        let state = match binding {
            Binding::Off => return None,
            Binding::Bound(template) => {
                format!("bound {}", state(&Binding::Bound(template.clone())))
            }
            other => state(other),
        };
        let text = format!("{family} {state}: default route is the namespace's own");
        Some(Self { text, reason: "left alone".to_owned() })
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host: {} [{}]", self.text, self.reason)
    }
}

fn state(binding: &Binding) -> String {
    match binding {
        Binding::Off => "off".to_owned(),
        Binding::Local => "local".to_owned(),
        Binding::Bound(template) => format!("{}({})", template.name, template.index),
        Binding::Held(template, ..) => format!("held {}({})", template.name, template.index),
    }
}

/// The primary with its prefix length, where the namespace is to have it.
fn primary(address: std::net::IpAddr, wants: Option<&Wanted>) -> String {
    let all = wants.into_iter().flat_map(|it| &it.addresses);
    let found = all.map(|it| it.prefix).find(|it| it.address() == address);
    found.map_or_else(|| address.to_string(), |it| it.to_string())
}

fn via(wants: Option<&Wanted>) -> String {
    let gateway = wants.and_then(|it| it.assigned.gateway);
    gateway.map_or_else(String::new, |it| format!(" via {it}"))
}
