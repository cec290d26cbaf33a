//! Ctrl-C: the lab leaves at the next measurement, and reports what there is.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::TERM_SIGNALS;

static STOP: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Listens to SIGINT, SIGTERM and SIGQUIT. A second one ends the process at once; the next lab removes what it leaves behind.
pub fn listen() -> io::Result<()> {
    let stop = Arc::clone(STOP.get_or_init(Arc::default));
    for signal in TERM_SIGNALS {
        signal_hook::flag::register_conditional_shutdown(*signal, 130, Arc::clone(&stop))?;
        signal_hook::flag::register(*signal, Arc::clone(&stop))?;
    }
    Ok(())
}

/// Whether a signal has come.
pub fn interrupted() -> bool {
    STOP.get().is_some_and(|stop| stop.load(Relaxed))
}
