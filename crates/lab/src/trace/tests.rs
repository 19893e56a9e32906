//! Traces as files: what is written is read, and what was damaged is refused.

mod corpus;
mod damage;
mod fuzz;
mod round_trip;
mod shipped;
