//! Frames: the examples of the standard, what is none, and every cut.

use super::*;
use proptest::prelude::*;

/// What a reader was told, pieces joined.
#[derive(Debug, Default, PartialEq, Eq)]
struct Log {
    messages: Vec<Vec<u8>>,
    open: Vec<u8>,
    too_long: usize,
    close: Option<Option<u16>>,
}

impl Messages for Log {
    fn data(&mut self, piece: &[u8]) {
        self.open.extend_from_slice(piece);
    }
    fn end(&mut self) {
        self.messages.push(std::mem::take(&mut self.open));
    }
    fn too_long(&mut self) {
        self.too_long += 1;
    }
    fn close(&mut self, code: Option<u16>) {
        assert_eq!(self.close, None);
        self.close = Some(code);
    }
}

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// One frame with the shortest length.
fn frame(side: Side, first: u8, payload: &[u8]) -> Vec<u8> {
    let masked = if side == Side::Client { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..=125 => bytes.push(masked | len as u8),
        len @ 126..=0xffff => {
            bytes.push(masked | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        len => {
            bytes.push(masked | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    if side == Side::Client {
        bytes.extend(MASK);
        bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
    } else {
        bytes.extend(payload);
    }
    bytes
}

fn server(first: u8, payload: &[u8]) -> Vec<u8> {
    frame(Side::Server, first, payload)
}

fn read(side: Side, bytes: &[u8], size: usize) -> (Log, Option<FrameError>) {
    let (mut frames, mut log) = (Frames::new(side), Log::default());
    for piece in bytes.chunks(size.max(1)) {
        frames.feed(piece, &mut log);
    }
    (log, frames.error())
}

/// Reads `bytes` in several cuts, which must agree.
fn check(side: Side, bytes: &[u8]) -> (Log, Option<FrameError>) {
    let whole = read(side, bytes, bytes.len());
    for size in [1, 2, 3, 7] {
        assert_eq!(read(side, bytes, size), whole, "in pieces of {size}");
    }
    whole
}

fn stops(side: Side, bytes: &[u8], expected: FrameError) {
    let mut stream = if side == Side::Server { server(0x81, b"before") } else { Vec::new() };
    stream.extend(bytes);
    stream.extend(frame(side, 0x81, b"after"));
    let (log, error) = check(side, &stream);
    assert_eq!(error, Some(expected));
    assert!(!log.messages.contains(&b"after".to_vec()), "nothing is read after the error");
}

#[test]
fn the_examples_of_the_standard_are_read() {
    // RFC 6455 §5.7.
    let hello = [b"Hello".to_vec()];
    assert_eq!(check(Side::Server, b"\x81\x05Hello").0.messages, hello);
    let masked = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
    assert_eq!(check(Side::Client, masked).0.messages, hello);
    assert_eq!(check(Side::Server, b"\x01\x03Hel\x80\x02lo").0.messages, hello);
    let binary = [b"\x82\x7e\x01\x00".to_vec(), vec![9; 256]].concat();
    assert_eq!(check(Side::Server, &binary).0.messages, [vec![9; 256]]);
    let long = [b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00".to_vec(), vec![7; 65_536]].concat();
    assert_eq!(check(Side::Server, &long).0.messages, [vec![7; 65_536]]);
}

#[test]
fn control_frames_between_fragments_change_nothing() {
    let stream = [
        server(0x01, b"one "),
        server(0x89, b"ping"),
        server(0x00, b""),
        server(0x8a, b""),
        server(0x80, b"two"),
        server(0x82, b""),
    ]
    .concat();
    let (log, error) = check(Side::Server, &stream);
    assert_eq!((log.messages, error), (vec![b"one two".to_vec(), Vec::new()], None));
}

#[test]
fn a_close_ends_the_reading_and_tells_its_code() {
    for (payload, code) in [(&b""[..], None), (b"\x03\xe8", Some(1000)), (b"\x0f\xa0gone", Some(4000))] {
        for side in [Side::Server, Side::Client] {
            let stream = [frame(side, 0x88, payload), frame(side, 0x81, b"after")].concat();
            let (log, error) = check(side, &stream);
            assert_eq!((log.close, error, log.messages.len()), (Some(code), None, 0));
        }
    }
}

#[test]
fn what_is_no_frame_stops_the_reading() {
    stops(Side::Server, &server(0xc1, b"deflated"), FrameError::Reserved);
    stops(Side::Server, &server(0x91, b"x"), FrameError::Reserved);
    stops(Side::Server, &server(0x83, b"x"), FrameError::Opcode);
    stops(Side::Server, &server(0x8b, b"x"), FrameError::Opcode);
    stops(Side::Server, &server(0x09, b"x"), FrameError::Control);
    stops(Side::Server, &server(0x89, &[0; 126]), FrameError::Control);
    stops(Side::Server, &server(0x80, b"x"), FrameError::Fragments);
    stops(Side::Server, &[server(0x01, b"x"), server(0x81, b"y")].concat(), FrameError::Fragments);
    stops(Side::Server, &frame(Side::Client, 0x81, b"x"), FrameError::Mask);
    stops(Side::Client, &server(0x81, b"x"), FrameError::Mask);
    stops(Side::Server, b"\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00", FrameError::Length);
    stops(Side::Server, b"HTTP/1.1 200 OK\r\n", FrameError::Reserved);
}

#[test]
fn a_message_over_the_limit_is_marked_and_the_next_one_is_read() {
    let half = vec![b'x'; usize::try_from(MESSAGE_BYTES_MAX / 2).unwrap()];
    let stream = [
        server(0x02, &half),
        server(0x00, &half),
        server(0x00, b"too much"),
        server(0x80, b"and more"),
        server(0x81, b"next"),
    ]
    .concat();
    for size in [stream.len(), 4_096, 4_099] {
        let (log, error) = read(Side::Server, &stream, size);
        let sizes: Vec<_> = log.messages.iter().map(Vec::len).collect();
        assert_eq!((sizes, log.too_long, error), (vec![half.len() * 2, 4], 1, None));
    }
    let exact = [server(0x02, &half), server(0x80, &half)].concat();
    assert_eq!(read(Side::Server, &exact, 4_096).0.too_long, 0);
}

#[test]
fn hidden_data_leaves_the_ends_and_the_close() {
    let stream = [
        frame(Side::Client, 0x81, b"first"),
        frame(Side::Client, 0x81, b"second"),
        frame(Side::Client, 0x88, b"\x03\xe9"),
    ]
    .concat();
    let (mut frames, mut log) = (Frames::new(Side::Client), Log::default());
    frames.hide_data();
    frames.feed(&stream, &mut log);
    assert_eq!(log.messages, vec![Vec::<u8>::new(); 2]);
    assert_eq!(log.close, Some(Some(1001)));
}

#[test]
fn every_cut_of_a_mixed_stream_gives_the_same_reading() {
    let stream = [
        frame(Side::Client, 0x01, b"{\"a\":"),
        frame(Side::Client, 0x8a, b"12345"),
        frame(Side::Client, 0x80, &[b'y'; 300]),
        frame(Side::Client, 0x88, b"\x03\xe8bye"),
    ]
    .concat();
    let whole = read(Side::Client, &stream, stream.len());
    for at in 0..stream.len() {
        let (mut frames, mut log) = (Frames::new(Side::Client), Log::default());
        let (first, second) = stream.split_at(at);
        frames.feed(first, &mut log);
        frames.feed(second, &mut log);
        assert_eq!((log, frames.error()), whole, "cut at {at}");
    }
}

fn any_stream() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop::collection::vec(any::<u8>(), 0..300);
    let opcode = prop::sample::select(vec![0x81_u8, 0x82, 0x01, 0x00, 0x80, 0x89, 0x8a, 0x88, 0xc1, 0x83]);
    let frames = prop::collection::vec((opcode, payload), 0..12);
    let sound = frames.prop_map(|frames| {
        frames.iter().flat_map(|(first, payload)| server(*first, payload)).collect::<Vec<u8>>()
    });
    prop_oneof![4 => sound, 1 => prop::collection::vec(any::<u8>(), 0..400)]
}

proptest! {
    #[test]
    fn slicing_never_changes_a_reading(
        stream in any_stream(), cuts in prop::collection::vec(1_usize..50, 1..40), is_client: bool,
    ) {
        let side = if is_client { Side::Client } else { Side::Server };
        let whole = read(side, &stream, stream.len());
        let (mut frames, mut log) = (Frames::new(side), Log::default());
        let (mut rest, mut cuts) = (stream.as_slice(), cuts.iter().cycle());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
            frames.feed(piece, &mut log);
            rest = after;
        }
        prop_assert_eq!((log, frames.error()), whole);
    }
}
