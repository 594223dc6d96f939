//! Printing. `println!` panics when the reader of a pipe has gone (`headroom config print | head`); here that is the end
//! of the command, and no failure.
//!
//! Names are the senders' words. A terminal takes control characters for orders, so none of theirs gets there.

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

/// A word of somebody else as one piece of a line: control characters are replaced, ends of lines among them.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// The same for a text of several lines.
pub(crate) fn printable_lines(text: &str) -> String {
    text.split('\n').map(printable).collect::<Vec<_>>().join("\n")
}

/// Says on standard error why the command ends as it does.
pub(crate) fn complain(text: &str) {
    // Nobody is left to be told if this fails.
    let _ = writeln!(std::io::stderr().lock(), "headroom: {}", printable_lines(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("web\x1b[2J\u{9b}31m\r\nok"), "web\u{fffd}[2J\u{fffd}31m\u{fffd}\u{fffd}ok");
        assert_eq!(printable_lines("a\x1b]0;t\x07\nb"), "a\u{fffd}]0;t\u{fffd}\nb");
    }
}
