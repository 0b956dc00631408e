//! What a server says to its operator: results on standard output, the rest on standard error. Neither ever holds it up, whoever reads them.

use crate::common::printer::{Out, Printer};
use std::sync::OnceLock;
use std::time::Duration;

static RESULTS: OnceLock<Option<Printer>> = OnceLock::new();
static NEWS: OnceLock<Option<Printer>> = OnceLock::new();

/// To the operator.
pub(super) fn tell(what: &str) {
    if let Some(printer) = on(&NEWS, Out::Stderr) {
        printer.print(format_args!("table-server: {what}\n"));
    }
}

/// On standard output.
pub(super) fn say(line: &str) {
    print(&format!("{line}\n"));
}

/// The same for a text with its own ends of lines.
pub(super) fn print(text: &str) {
    if let Some(printer) = on(&RESULTS, Out::Stdout) {
        printer.print(format_args!("{text}"));
    }
}

/// Gives what was said last the time to get out.
pub fn drain() {
    for printer in [&RESULTS, &NEWS] {
        if let Some(Some(printer)) = printer.get() {
            printer.drain(WITHIN);
        }
    }
}

/// A system that makes no thread for it goes without.
fn on(printer: &'static OnceLock<Option<Printer>>, out: Out) -> Option<&'static Printer> {
    let dropped = |texts| format!("table-server: {texts} texts that nobody took were left out");
    let printer = printer.get_or_init(|| Printer::on(out, dropped).ok());
    printer.as_ref()
}

const WITHIN: Duration = Duration::from_secs(1);
