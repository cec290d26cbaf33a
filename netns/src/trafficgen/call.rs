//! One long `BPF_PROG_RUN` a core, ended when its work is done.
//!
//! Setting up and tearing down a run takes the kernel some 20 ms, in which nothing is sent: so there is one run, with as
//! many frames as it takes, and a signal ends it. The kernel looks for signals between two batches.

use std::{
    io, mem, ptr,
    sync::{
        Once,
        atomic::{AtomicBool, AtomicI32, Ordering},
    },
};

use aya::programs::{ProgramError, TestRun as _, TestRunAttrs, TestRunOptions, Xdp};

use super::object::failed;
use crate::error::Result;

/// The signal that ends a run. It says nothing to anybody by default, and the Go runtime uses it for the same purpose.
const SIGNAL: libc::c_int = libc::SIGURG;

/// A thread that runs the program, and may be told to end.
#[derive(Debug, Default)]
pub(super) struct Call {
    thread: AtomicI32,
    ending: AtomicBool,
    ended: AtomicBool,
}

impl Call {
    /// Runs the program on this many live frames, in this thread, until [`interrupt`](Self::interrupt) is called from
    /// another one. A signal ends the run early as well.
    pub fn run(&self, program: &Xdp, frame: &[u8], frames: u32, batch: u32) -> Result<()> {
        handle_signal();
        self.thread.store(nix::unistd::gettid().as_raw(), Ordering::SeqCst);
        if self.is_ending() {
            return Ok(());
        }
        run_on_live_frames(program, frame, frames, batch)
    }

    /// Says that no further run will be made.
    pub fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }

    /// Whether [`end`](Self::end) was called.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Whether [`interrupt`](Self::interrupt) was called.
    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }

    /// Ends the run. The signal may come just before the system call that it is to end: call again until
    /// [`has_ended`](Self::has_ended).
    pub fn interrupt(&self) {
        self.ending.store(true, Ordering::SeqCst);
        let thread = self.thread.load(Ordering::SeqCst);
        if thread != 0 && !self.has_ended() {
            // SAFETY: no pointers. If the thread has ended in between, the call fails, or another thread of this process
            // gets a signal that does nothing.
            unsafe { libc::tgkill(libc::getpid(), thread, SIGNAL) };
        }
    }
}

/// A signal ends a system call only if it is handled.
fn handle_signal() {
    extern "C" fn nothing(_: libc::c_int) {}
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: plain data, for which all zeroes is a valid value.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        // SAFETY: the handler does nothing at all, which is allowed in a signal handler.
        let result = unsafe { libc::sigaction(SIGNAL, &raw const action, ptr::null_mut()) };
        debug_assert_eq!(result, 0, "{}", io::Error::last_os_error());
    });
}

/// One `BPF_PROG_RUN`. That a signal ends it early is no error: what was sent is counted by the program.
pub(super) fn run_on_live_frames(program: &Xdp, frame: &[u8], frames: u32, batch: u32) -> Result<()> {
    let options = TestRunOptions {
        data_in: Some(frame),
        repeat: frames,
        attrs: TestRunAttrs::new().xdp_live_frames(batch),
        ..TestRunOptions::new()
    };
    match program.test_run(options) {
        Ok(_) => Ok(()),
        Err(ProgramError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EINTR) => {
            Ok(())
        }
        Err(error) => Err(failed("run on live frames".to_owned(), error)),
    }
}
