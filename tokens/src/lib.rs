//! Counting tokens: exact for the vocabularies that are published, estimated for the others.
//!
//! | file | owns |
//! |---|---|
//! | `encoding` | the vocabularies by name, loaded when first needed |
//! | `split`, `classes` | cutting text into pre-tokens, and the character classes that decide it |
//! | `merge`, `vocabulary` | byte-pair merging of a pre-token; the packed ranks |
//! | `stream` | counting text that comes in pieces |
//! | `bound`, `rough` | a bound that is safe to reserve; an estimate without a vocabulary |
//! | `models` | which vocabulary a model has, as far as that is known |
//! | `overhead`, `image` | what a provider adds around the text |
//!
//! Invariants
//! - A count is what Python's `tiktoken.encode_ordinary` gives: text of special tokens is text.
//! - Time grows with the length of the text, and at most with its logarithm besides; nothing panics.
//! - What is not exact says so: see [`models::Knowledge`] and [`stream::Counted`].
//!
//! Not here: where the text comes from (`proxy::usage`), threads (`proxy::count`).

mod bound;
mod classes;
pub mod encoding;
pub mod image;
mod merge;
pub mod models;
pub mod overhead;
mod rough;
mod split;
pub mod stream;
mod vocabulary;

pub use bound::{EXACT_BYTES_MAX, strict_bound};
pub use encoding::{Encoding, LoadError, Tokenizer};
pub use models::{Family, Host, Knowledge, Model, model};
pub use rough::rough;
pub use stream::{Counted, StreamCounter};
