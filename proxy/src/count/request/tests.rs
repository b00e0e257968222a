//! Counting requests.
