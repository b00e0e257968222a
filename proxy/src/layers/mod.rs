//! The layers of the request path, one file each; `stack` lists them in order.

pub mod admit;
pub mod authenticate;
pub mod forward;
pub mod identify;
pub mod meter;
pub mod respond;
pub mod room;
pub mod route;
pub mod upgrade;

pub(crate) mod query_keys;
