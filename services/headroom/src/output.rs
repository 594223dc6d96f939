//! Printing. `println!` panics when the reader of a pipe has gone (`headroom config print | head`); here that is the end
//! of the command, and no failure.

use std::io::{ErrorKind, Write};

use crate::cli::exit;

/// Prints a text as it is and gives the exit code that follows.
pub(crate) fn print(text: &str) -> u8 {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => exit::FAILED,
        _ => exit::OK,
    }
}

/// Says on standard error why the command ends as it does.
pub(crate) fn complain(text: &str) {
    // Nobody is left to be told if this fails.
    let _ = writeln!(std::io::stderr().lock(), "headroom: {text}");
}
