//! The named maxima of one request.
//!
//! Not here: deadlines (`deadlines`), connection counts (the listener).

/// How large a request and its parts may be. Sizes are as received, line ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Request line and header section with its final empty line, in bytes.
    pub head_bytes_max: usize,
    /// Header lines.
    pub headers_max: usize,
    /// Request target, in bytes.
    pub target_bytes_max: usize,
    /// Whether GET and HEAD may carry a body. Upstreams read those differently; who reads them by their framing may.
    pub body_of_get: bool,
    /// Request body after removal of the transfer coding, in bytes.
    pub body_bytes_max: u64,
    /// Trailer section with its final empty line, in bytes.
    pub trailer_bytes_max: usize,
    /// Trailer lines.
    pub trailers_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: 16 * 1024,
            headers_max: 100,
            target_bytes_max: 8 * 1024,
            body_of_get: false,
            body_bytes_max: 32 * 1024 * 1024,
            trailer_bytes_max: 8 * 1024,
            trailers_max: 16,
        }
    }
}
