//! Many files as one data set: plan, collator, read-ahead, resumable state.
