//! Traces as files: what is written is read, and what was damaged is refused.

mod damage;
mod round_trip;
