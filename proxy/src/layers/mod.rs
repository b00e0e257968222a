//! The layers of the request path, one file each; `stack` lists them in order.

pub mod admit;
pub mod forward;
pub mod identify;
pub mod meter;
pub mod respond;
pub mod room;
pub mod route;
pub mod upgrade;

mod query_keys;
