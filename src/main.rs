//! The `gene-bert` command: parse, run, say what went wrong, exit code.

use std::panic::{self, PanicHookInfo};
use std::process::ExitCode;

use gene_bert::cli::{Cli, failure};

/// The user can put it right.
const USER_ERROR: u8 = 1;
/// A fault of ours.
const OUR_ERROR: u8 = 2;

fn main() -> ExitCode {
    panic::set_hook(Box::new(on_panic));
    let cli = match Cli::from_words(std::env::args_os()) {
        Ok(cli) => cli,
        Err(message) => {
            let _ = message.print();
            return if message.use_stderr() {
                USER_ERROR.into()
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match panic::catch_unwind(|| cli.run()) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) if failure::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            eprintln!("{}", failure::describe(&error));
            failure::exit_code(&error).unwrap_or(USER_ERROR).into()
        }
        Err(_) => OUR_ERROR.into(),
    }
}

/// A short message in place of Rust's own; a closed pipe on stdout ends the program in silence.
fn on_panic(panic: &PanicHookInfo<'_>) {
    let payload = panic.payload();
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    let message = text.unwrap_or("unknown cause");
    if message.starts_with("failed printing to stdout") && message.contains("Broken pipe") {
        std::process::exit(0);
    }
    let place = panic
        .location()
        .map_or_else(String::new, |l| format!(" at {l}"));
    eprintln!("internal error{place}: {message}");
    eprintln!("hint: this is a fault of gene-bert; please report it with the command line");
}
