//! Every reason for turning a request away before it is routed.
//!
//! Invariants
//! - A reason has one number, one name, one status and one text, all in one table.
//! - Texts name the rule and the remedy and never repeat what the client sent.
//!
//! Not here: the body of the answer (`layers::respond`).

use http::StatusCode;

macro_rules! rejections {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $status:ident, $name:literal, $text:literal;)+) => {
        /// Why a request was turned away.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
        pub enum Rejection {
            $($(#[$doc])* #[error($text)] $variant = $number,)+
        }

        impl Rejection {
            /// Every reason, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The status that answers it.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)+ }
            }

            /// Its name in metrics and logs.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// Its number.
            #[must_use]
            pub const fn number(self) -> u16 {
                match self { $(Self::$variant => $number,)+ }
            }

            /// The reason with this number.
            #[must_use]
            pub const fn from_number(number: u16) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

rejections! {
    /// The first line has another shape than `METHOD target HTTP/1.1`.
    RequestLine = 1, BAD_REQUEST, "request_line",
        "malformed request line: send `METHOD target HTTP/1.1` with single spaces";
    /// The method is none we know.
    UnknownMethod = 2, NOT_IMPLEMENTED, "unknown_method",
        "unknown method: use GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS";
    /// CONNECT or TRACE.
    ForbiddenMethod = 3, NOT_IMPLEMENTED, "forbidden_method",
        "CONNECT and TRACE are not served: use GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS";
    /// Neither HTTP/1.1 nor HTTP/1.0.
    HttpVersion = 4, HTTP_VERSION_NOT_SUPPORTED, "http_version",
        "unsupported HTTP version: use HTTP/1.1 or HTTP/2";
    /// The target is not in origin form.
    TargetForm = 5, BAD_REQUEST, "target_form",
        "the request target must be a path that starts with `/`: send no scheme or authority in it";
    /// The target holds a byte that no URL path or query may hold.
    TargetByte = 6, BAD_REQUEST, "target_byte",
        "the request target contains a forbidden character: percent-encode it, and send no fragment";
    /// A percent sign without two hexadecimal digits, or an encoded NUL.
    TargetPercent = 7, BAD_REQUEST, "target_percent",
        "the request target contains a malformed percent-encoding or an encoded NUL: encode as `%XX`";
    /// The target is too long.
    TargetTooLong = 8, URI_TOO_LONG, "target_too_long",
        "the request target is too long: move parameters to the body";
    /// The head is too large.
    HeadTooLarge = 9, REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large",
        "the request head is too large: send fewer or shorter headers";
    /// Too many header lines.
    TooManyHeaders = 10, REQUEST_HEADER_FIELDS_TOO_LARGE, "too_many_headers",
        "too many headers: send fewer";
    /// A line feed without its carriage return, or the reverse.
    LineEnding = 11, BAD_REQUEST, "line_ending",
        "a line does not end with CRLF or contains a bare CR: end each line with CRLF";
    /// More than one empty line before a request.
    LeadingLines = 12, BAD_REQUEST, "leading_lines",
        "empty lines before the request: start with the request line";
    /// A header continued on a second line.
    FoldedHeader = 13, BAD_REQUEST, "folded_header",
        "a header line starts with white space: send each header on one line";
    /// A header name that is no token.
    HeaderName = 14, BAD_REQUEST, "header_name",
        "malformed header name: use letters, digits and hyphens, then a colon";
    /// White space between header name and colon.
    SpaceBeforeColon = 15, BAD_REQUEST, "space_before_colon",
        "white space before the colon of a header: remove it";
    /// A control character in a header value, or in HTTP/2 space around it.
    HeaderValue = 16, BAD_REQUEST, "header_value",
        "a header value contains a control character or space around it: remove it";
    /// A byte above 0x7f in a header value.
    ObsoleteText = 17, BAD_REQUEST, "obsolete_text",
        "a header value contains a non-ASCII byte: encode it";
    /// No `Host`.
    HostMissing = 18, BAD_REQUEST, "host_missing", "the Host header is missing: send exactly one";
    /// A `Host` that names no host.
    HostInvalid = 19, BAD_REQUEST, "host_invalid",
        "the Host header is malformed: send `name` or `name:port`";
    /// Two hosts that differ.
    HostConflict = 20, BAD_REQUEST, "host_conflict",
        "the Host header and the authority differ: send only one of them";
    /// A header that may occur once occurs twice.
    RepeatedHeader = 21, BAD_REQUEST, "repeated_header",
        "a header that may be sent once is sent more than once: send it once";
    /// A transfer coding other than exactly `chunked`.
    TransferEncoding = 22, BAD_REQUEST, "transfer_encoding",
        "unsupported Transfer-Encoding: send exactly `Transfer-Encoding: chunked`";
    /// A transfer coding in HTTP/1.0.
    TransferEncodingVersion = 23, BAD_REQUEST, "transfer_encoding_version",
        "Transfer-Encoding needs HTTP/1.1: send a Content-Length";
    /// A transfer coding and a length.
    TransferEncodingWithLength = 24, BAD_REQUEST, "transfer_encoding_with_length",
        "both Transfer-Encoding and Content-Length are present: send one of them";
    /// A length that is no plain number.
    ContentLength = 25, BAD_REQUEST, "content_length",
        "malformed Content-Length: send one decimal number without sign or leading zero";
    /// The body is larger than allowed.
    BodyTooLarge = 26, PAYLOAD_TOO_LARGE, "body_too_large",
        "the request body is too large: send a smaller one";
    /// A body on GET or HEAD.
    UnexpectedBody = 27, BAD_REQUEST, "unexpected_body",
        "GET and HEAD requests carry no body here: use POST";
    /// One of our own header names spelled with underscores.
    UnderscoreName = 28, BAD_REQUEST, "underscore_name",
        "an x-bursar header is spelled with underscores: use hyphens";
    /// An `Expect` other than `100-continue`.
    Expectation = 29, EXPECTATION_FAILED, "expectation",
        "unsupported expectation: send `Expect: 100-continue` or none";
    /// A chunk size that is not 1 to 8 hexadecimal digits and CRLF.
    ChunkSize = 30, BAD_REQUEST, "chunk_size",
        "malformed chunk size: send 1 to 8 hexadecimal digits and CRLF";
    /// A chunk extension.
    ChunkExtension = 31, BAD_REQUEST, "chunk_extension",
        "chunk extensions are not accepted: send the size alone";
    /// Chunk data without CRLF after it.
    ChunkEnd = 32, BAD_REQUEST, "chunk_end",
        "chunk data is not followed by CRLF: make the size match the data";
    /// The trailer section is too large.
    TrailersTooLarge = 33, REQUEST_HEADER_FIELDS_TOO_LARGE, "trailers_too_large",
        "the trailer section is too large: send fewer or shorter trailers";
    /// Too many trailer lines.
    TooManyTrailers = 34, REQUEST_HEADER_FIELDS_TOO_LARGE, "too_many_trailers",
        "too many trailers: send fewer";
    /// A trailer that would change framing, routing or identity.
    ForbiddenTrailer = 35, BAD_REQUEST, "forbidden_trailer",
        "a trailer has a name that is only valid as a header: send it as a header";
    /// A `.` or `..` segment.
    DotSegment = 36, BAD_REQUEST, "dot_segment",
        "the path contains `.` or `..` segments: send the resolved path";
    /// A double slash.
    EmptySegment = 37, BAD_REQUEST, "empty_segment",
        "the path contains `//`: send single slashes";
    /// An encoded slash, backslash, `?`, `#`, `%`, `;` or control character.
    EncodedDelimiter = 38, BAD_REQUEST, "encoded_delimiter",
        "the path contains an encoded delimiter or control character: remove it";
    /// An encoded letter, digit, `-`, `.`, `_` or `~`.
    NeedlessEncoding = 39, BAD_REQUEST, "needless_encoding",
        "the path encodes characters that need no encoding: send them plainly";
    /// A `;` in the path.
    MatrixParameter = 40, BAD_REQUEST, "matrix_parameter",
        "the path contains `;` parameters: use the query";
    /// A path that does not decode to UTF-8.
    PathEncoding = 41, BAD_REQUEST, "path_encoding",
        "the path does not decode to UTF-8: encode it as UTF-8";
    /// A header that HTTP/2 forbids.
    ConnectionHeader = 42, BAD_REQUEST, "connection_header",
        "HTTP/2 requests carry no connection-specific headers: remove them";
    /// A `TE` other than `trailers` in HTTP/2.
    TeHeader = 43, BAD_REQUEST, "te_header",
        "in HTTP/2 the TE header may only be `trailers`: remove it";
    /// The head was not complete in time.
    HeadTimeout = 44, REQUEST_TIMEOUT, "head_timeout",
        "the request head did not arrive in time: send it at once";
    /// The body stalled.
    BodyTimeout = 45, REQUEST_TIMEOUT, "body_timeout",
        "the request body stalled: send it without pauses";
    /// A header that asks for another method than the one that was sent.
    MethodOverride = 46, BAD_REQUEST, "method_override",
        "a header overrides the method: send the method itself";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_found_by_its_number_and_has_its_own_name() {
        let mut names = std::collections::HashSet::new();
        for &reason in Rejection::ALL {
            assert_eq!(Rejection::from_number(reason.number()), Some(reason));
            assert!(names.insert(reason.name()), "{} twice", reason.name());
            assert!(reason.status().is_client_error() || reason.status().is_server_error());
            assert!(reason.to_string().contains(':'), "{reason} names no remedy");
        }
        assert_eq!(Rejection::from_number(0), None);
    }
}
