//! A worker on a thread of its own, pinned to a core.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;

use core_affinity::CoreId;

use super::{FrameLeak, Worker};
use crate::pipeline::Stage;
use crate::port::{Port, PortError};

/// How a worker came to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerEnd {
    /// A stage panicked.
    #[error("worker {worker} panicked: {message}")]
    Panicked {
        /// Index of the worker.
        worker: usize,
        /// What the panic said.
        message: String,
    },
    /// A port came to its end.
    #[error("worker {worker}: {source}")]
    Port {
        /// Index of the worker.
        worker: usize,
        /// Why.
        source: PortError,
    },
    /// The books did not close.
    #[error("worker {worker}: {source}")]
    FrameLeak {
        /// Index of the worker.
        worker: usize,
        /// The sums.
        source: FrameLeak,
    },
    /// The thread could not be started.
    #[error("cannot start the thread of worker {worker}: {source}")]
    Thread {
        /// Index of the worker.
        worker: usize,
        /// What the system answered.
        source: std::io::Error,
    },
}

/// A running worker. Dropping it stops the worker and waits for its end.
pub struct WorkerThread {
    /// Taken by whoever waits for it.
    handle: Option<JoinHandle<Result<(), WorkerEnd>>>,
    stop: Arc<AtomicBool>,
}

impl WorkerThread {
    /// Starts `worker` as number `index`, on `core` when one is given. `on_end` is called from the thread when it has
    /// ended, however that was.
    ///
    /// # Errors
    ///
    /// [`WorkerEnd::Thread`] when the system has no thread to give.
    pub fn start<P, S>(
        index: usize,
        mut worker: Worker<P, S>,
        core: Option<usize>,
        on_end: impl FnOnce() + Send + 'static,
    ) -> Result<Self, WorkerEnd>
    where
        P: Port + Send + 'static,
        P::Frame: Send,
        S: Stage + 'static,
    {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let body = move || {
            if let Some(id) = core
                && !core_affinity::set_for_current(CoreId { id })
            {
                tracing::warn!("worker {index} could not be pinned to core {id}");
            }
            // A worker that panicked is not used again, only dropped: its books are not looked at.
            let end = match catch_unwind(AssertUnwindSafe(|| worker.run(&stopped))) {
                Ok(Ok(())) => {
                    worker.check_frames().map_err(|source| WorkerEnd::FrameLeak { worker: index, source })
                }
                Ok(Err(source)) => Err(WorkerEnd::Port { worker: index, source }),
                Err(panic) => Err(WorkerEnd::Panicked { worker: index, message: message_of(panic.as_ref()) }),
            };
            on_end();
            end
        };
        let handle = std::thread::Builder::new()
            .name(format!("xfwd-worker-{index}"))
            .spawn(body)
            .map_err(|source| WorkerEnd::Thread { worker: index, source })?;
        Ok(Self { handle: Some(handle), stop })
    }

    /// Tells the worker to stop, without waiting.
    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    /// Whether the worker has ended.
    pub fn is_finished(&self) -> bool {
        self.handle.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for the worker's end.
    ///
    /// # Errors
    ///
    /// [`WorkerEnd`] when it was not the one asked for.
    pub fn join(mut self) -> Result<(), WorkerEnd> {
        self.wait()
    }

    fn wait(&mut self) -> Result<(), WorkerEnd> {
        match self.handle.take() {
            Some(handle) => handle.join().expect("the thread's body catches panics"),
            None => Ok(()),
        }
    }
}

/// A worker that nobody can stop any more would keep its queue, and its core, for as long as the process lives.
impl Drop for WorkerThread {
    fn drop(&mut self) {
        self.stop();
        if let Err(end) = self.wait() {
            tracing::error!("{end}");
        }
    }
}

fn message_of(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|message| (*message).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "(no message)".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Batch;
    use crate::port::memory::MemoryPort;
    use crate::worker::Idle;

    struct Faulty;

    impl Stage for Faulty {
        fn name(&self) -> &str {
            "faulty"
        }
        fn process(&mut self, _batch: &mut Batch<'_>) {
            panic!("a bug in a stage");
        }
    }

    fn start(inject: bool) -> (WorkerThread, Arc<AtomicBool>) {
        let mut worker = Worker::new(
            vec![MemoryPort::new(8)],
            MemoryPort::frames(32, 2048),
            Faulty,
            Idle::Adaptive,
            Arc::default(),
        );
        if inject {
            worker.ports_mut()[0].inject(&[0; 60]);
        }
        let ended = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ended);
        let thread = WorkerThread::start(3, worker, None, move || flag.store(true, Relaxed)).unwrap();
        (thread, ended)
    }

    #[test]
    fn a_panic_in_a_stage_ends_the_worker_with_its_message() {
        let (thread, ended) = start(true);
        let end = thread.join().unwrap_err();
        assert_eq!(end.to_string(), "worker 3 panicked: a bug in a stage");
        assert!(ended.load(Relaxed));
    }

    #[test]
    fn a_worker_ends_with_its_handle() {
        let (thread, ended) = start(false);
        drop(thread);
        assert!(ended.load(Relaxed));
    }

    #[test]
    fn a_worker_stops_when_told() {
        let (thread, ended) = start(false);
        thread.stop();
        thread.join().unwrap();
        assert!(ended.load(Relaxed));
    }
}
