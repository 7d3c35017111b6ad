//! What can be wrong before a run begins. Later, a tracker's trouble is a warning only.

/// A tracker that cannot work as things are set.
#[derive(Debug, thiserror::Error)]
#[error("--report-to {tracker}: {problem}\nhint: {hint}")]
pub struct TrackError {
    /// The tracker.
    pub tracker: &'static str,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub hint: String,
}
