//! Signals that end a server.

use std::{io, thread};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::ServerHandle;

impl ServerHandle {
    /// From now on SIGTERM and SIGINT end the server, and no longer the process: the first one [drains](Self::drain) it, the second
    /// [stops](Self::stop) it, and further ones do nothing. Call it before the program tells that it listens. A thread waits for the
    /// signals, so it works also when those of the server are busy; other handlers of these signals are called as well.
    ///
    /// Feature `signals`, on Unix.
    ///
    /// ```no_run
    /// # fn run(handle: spop_server::ServerHandle) -> std::io::Result<()> {
    /// handle.end_on_signals()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The system has no handler of signals, or no thread.
    pub fn end_on_signals(&self) -> io::Result<()> {
        let (handle, mut signals) = (self.clone(), Signals::new([SIGTERM, SIGINT])?);
        let end = move || {
            for (_, end) in signals.forever().zip([Self::drain, Self::stop]) {
                end(&handle);
            }
        };
        thread::Builder::new().name("spop-signals".to_owned()).spawn(end)?;
        Ok(())
    }
}
