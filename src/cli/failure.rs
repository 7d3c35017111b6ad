//! How an error looks on the terminal: one paragraph from outside to cause, then the remedies.
//!
//! The convention of every room: an error's text says what and where; where the remedy is known,
//! it ends with a line `hint: …`. Causes travel as `source` and are not repeated in the text.

use std::io;

use crate::train::launch::RunFailed;

/// What a GPU's driver says that has no memory left, and what helps.
const NO_MEMORY: &str = "CUDA_ERROR_OUT_OF_MEMORY";
const NO_MEMORY_HINT: &str = "the GPU's memory is used up: take smaller batches (for a new run \
                              --auto_find_batch_size finds the size), --tokens_per_batch or \
                              --recompute, or see with nvidia-smi who else uses it";

/// `error: outer: cause: its cause`, then one line `hint: …` per remedy found in the chain.
pub fn describe(error: &anyhow::Error) -> String {
    let mut message = String::from("error");
    let mut hints: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        let mut parts = text.split("hint: ");
        let what = parts
            .next()
            .unwrap_or_default()
            .trim_end_matches([' ', '\n', ';', ':', '(']);
        for hint in parts {
            let hint = hint.trim_end().to_owned();
            if !hints.contains(&hint) {
                hints.push(hint);
            }
        }
        if !what.is_empty() && !message.contains(what) {
            message.push_str(": ");
            message.push_str(what);
        }
    }
    if message.contains(NO_MEMORY) {
        hints.push(NO_MEMORY_HINT.to_owned());
    }
    for hint in hints {
        message.push_str("\nhint: ");
        message.push_str(&hint);
    }
    message
}

/// Whether the reader of our output went away (`gene-bert … | head`), which is no error.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        let json = cause
            .downcast_ref::<serde_json::Error>()
            .and_then(|e| e.io_error_kind());
        io.or(json) == Some(io::ErrorKind::BrokenPipe)
    })
}

/// The exit code that an error brings along; `None`: that of the user's mistakes.
pub fn exit_code(error: &anyhow::Error) -> Option<u8> {
    let failed = error.downcast_ref::<RunFailed>();
    failed.map(|failed| failed.code)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn hints_come_last_and_once() {
        let error = anyhow!("disk full\nhint: free space")
            .context("a/b: cannot write it\nhint: free space\nhint: or elsewhere")
            .context("saving the checkpoint");
        assert_eq!(
            describe(&error),
            "error: saving the checkpoint: a/b: cannot write it: disk full\n\
             hint: free space\nhint: or elsewhere"
        );
    }

    #[test]
    fn a_cause_repeated_by_its_parent_is_said_once() {
        let error = anyhow!("no such key").context("f.toml: no such key");
        assert_eq!(describe(&error), "error: f.toml: no such key");
    }

    #[test]
    fn a_gpu_without_memory_is_helped() {
        let error = anyhow!("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")");
        let said = describe(&error);
        assert!(
            said.contains("\nhint: the GPU's memory is used up: take"),
            "{said}"
        );
        assert!(said.contains("--auto_find_batch_size finds"), "{said}");
    }

    #[test]
    fn a_closed_pipe_is_recognised_below_context() {
        let pipe = io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(is_broken_pipe(
            &anyhow::Error::from(pipe).context("printing")
        ));
        assert!(!is_broken_pipe(&anyhow!("other")));
        let pipe = serde_json::Error::io(io::ErrorKind::BrokenPipe.into());
        assert!(is_broken_pipe(&anyhow::Error::from(pipe)));
    }
}
