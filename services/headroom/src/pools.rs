//! Threads of their own for the paths that must not hold up each other.
//!
//! A runtime runs its tasks in turns, and decoding a body of megabytes is one long turn: readers who share the threads
//! wait for it, behind everything else that is ready. With threads of their own they wait for a time slice of the
//! operating system, which prefers who has slept to who has computed. It costs a few sleeping threads.

use std::future::Future;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

/// The threads of one path. When it is dropped the tasks on it end where they next wait.
pub(crate) struct Pool(Option<Runtime>);

impl Pool {
    /// As many threads as there are cores, two at least: one long turn must leave another thread.
    ///
    /// # Errors
    /// If the threads cannot be started.
    pub(crate) fn new(name: &'static str) -> Result<Self, String> {
        let cores = std::thread::available_parallelism().map_or(2, usize::from).max(2);
        let runtime = Builder::new_multi_thread().worker_threads(cores).thread_name(name).enable_all().build();
        runtime.map(|runtime| Self(Some(runtime))).map_err(|error| format!("cannot start threads for {name}: {error}"))
    }

    fn handle(&self) -> Handle {
        self.0.as_ref().map_or_else(Handle::current, |runtime| runtime.handle().clone())
    }

    /// Runs a task on these threads.
    pub(crate) fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.handle().spawn(task)
    }

    /// Runs a task on these threads and waits for it: a socket belongs to the threads that it was bound on.
    ///
    /// # Errors
    /// The task's own.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        task: impl Future<Output = Result<T, String>> + Send + 'static,
    ) -> Result<T, String> {
        self.spawn(task).await.unwrap_or_else(|error| Err(format!("a task ended early: {error}")))
    }
}

/// A runtime must not be waited for where others run.
impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
