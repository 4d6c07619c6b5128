//! A process that somebody has taken over: system calls made inside it, with its own rights and filter.
//!
//! The process is stopped (ptrace(2)) in a call that it waits in. The instruction that made that call makes
//! another one, with other registers, as code would that was put there; then all is as it was before.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::Outcome;
use crate::lab::wait;

/// Room below the stack that is used for messages. Chosen: within the pages that are there.
const ROOM: u64 = 2048;

/// What code may use below the stack pointer without moving it (the red zone of the System V ABI).
const RED_ZONE: u64 = 128;

/// The instruction that makes a system call, at the lower end of a word.
const SYSCALL: i64 = 0x050f;

/// A process that is stopped, for as long as this lives.
#[derive(Debug)]
pub struct Injector {
    pid: Pid,
    before: libc::user_regs_struct,
    memory: File,
    ended: bool,
}

/// How a call went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Called {
    /// What it gave.
    Gave(i64),
    /// Its error.
    Failed(Errno),
    /// The filter has ended the process.
    Killed,
}

impl Injector {
    /// Stops process `pid` as soon as it waits in a system call.
    ///
    /// # Errors
    ///
    /// `EPERM` for who may not trace it; when it is never in a system call.
    pub fn stop(pid: i32) -> Outcome<Self> {
        wait::until("a process in a system call", || Self::stop_in_call(pid).transpose())?
    }

    /// None if it was in no system call; then it goes on.
    fn stop_in_call(pid: i32) -> Outcome<Option<Self>> {
        let pid = Pid::from_raw(pid);
        ptrace::attach(pid)?;
        waitpid(pid, Some(WaitPidFlag::__WALL))?;
        let before = ptrace::getregs(pid)?;
        let memory = OpenOptions::new().read(true).write(true).open(format!("/proc/{pid}/mem"))?;
        let instruction = ptrace::read(pid, (before.rip - 2) as ptrace::AddressType)?;
        if instruction & 0xffff != SYSCALL {
            ptrace::detach(pid, None)?;
            return Ok(None);
        }
        Ok(Some(Self { pid, before, memory, ended: false }))
    }

    /// Puts `octets` where a call can find them; their address there.
    ///
    /// # Errors
    ///
    /// When they are too many.
    pub fn put(&self, octets: &[u8]) -> Outcome<u64> {
        if octets.len() as u64 > ROOM {
            return Err("too much to put there".into());
        }
        let address = (self.before.rsp - RED_ZONE - ROOM) & !0xf;
        self.memory.write_all_at(octets, address)?;
        Ok(address)
    }

    /// What stands there.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn get(&self, address: u64, octets: &mut [u8]) -> Outcome {
        Ok(self.memory.read_exact_at(octets, address)?)
    }

    /// Makes the system call `number` in the process.
    ///
    /// # Errors
    ///
    /// When it cannot be made; what the kernel answers is no error here.
    pub fn call(&mut self, number: libc::c_long, arguments: [u64; 6]) -> Outcome<Called> {
        let [rdi, rsi, rdx, r10, r8, r9] = arguments;
        let rip = self.before.rip - 2;
        // No call was interrupted, as far as the kernel is concerned: nothing is made again.
        let (rax, orig_rax) = (number as u64, u64::MAX);
        let registers = libc::user_regs_struct {
            rdi,
            rsi,
            rdx,
            r10,
            r8,
            r9,
            rip,
            rax,
            orig_rax,
            ..self.before
        };
        ptrace::setregs(self.pid, registers)?;
        ptrace::step(self.pid, None)?;
        match waitpid(self.pid, Some(WaitPidFlag::__WALL))? {
            WaitStatus::Stopped(_, Signal::SIGTRAP) => {}
            WaitStatus::Signaled(_, Signal::SIGSYS, _) => {
                self.ended = true;
                return Ok(Called::Killed);
            }
            other => return Err(format!("after call {number}: {other:?}").into()),
        }
        let result = ptrace::getregs(self.pid)?.rax as i64;
        Ok(match result {
            // The kernel's errors are the last page of the numbers.
            -4095..0 => Called::Failed(Errno::from_raw(-result as i32)),
            result => Called::Gave(result),
        })
    }
}

impl Drop for Injector {
    fn drop(&mut self) {
        if !self.ended {
            // Fails only for a process that was killed meanwhile.
            let _ = ptrace::setregs(self.pid, self.before);
            let _ = ptrace::detach(self.pid, None);
        }
    }
}
