//! AdamW, schedules, clipping.
