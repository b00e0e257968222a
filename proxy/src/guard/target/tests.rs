//! Targets and paths: what is refused, by which rule, and what a path decodes to.

use super::*;
use proptest::prelude::*;

/// The verdict on a whole target.
fn verdict(target: &str) -> Result<String, Rejection> {
    check_target(target.as_bytes())?;
    let path = target.split('?').next().unwrap_or_default();
    canonical_path(path).map(Cow::into_owned)
}

#[test]
fn plain_targets_are_their_own_canonical_path() {
    for target in [
        "/",
        "/v1/chat/completions",
        "/v1/models/",
        "/gemini/v1beta/models/gemini-2.5-pro:streamGenerateContent",
        "/azure/res/openai/deployments/a_b~c/chat/completions",
        "/bedrock/us-east-1/model/anthropic.claude-v2:1/invoke-with-response-stream",
        "/a/...",
        "/a/.b/c.",
        "/x/(1),'2'*+$&!=@",
        "/V1/Chat",
    ] {
        assert_eq!(verdict(target).as_deref(), Ok(target));
    }
}

#[test]
fn queries_may_hold_what_clients_send_and_do_not_touch_the_path() {
    for query in
        ["", "a=1&b=2", "alt=sse&key=A_b-c", "include[]=x", "f={%22a%22:1}", "a=%2F..%2F", "a=b?c|d^e`f"]
    {
        assert_eq!(verdict(&format!("/p?{query}")).as_deref(), Ok("/p"), "{query}");
    }
    for query in ["a=\"b\"", "a=<b>", "a=b\\c", "a=b#c", "a=b c", "a=\u{e9}", "a=\u{7f}", "a=\t"] {
        assert_eq!(verdict(&format!("/p?{query}")), Err(Rejection::TargetByte), "{query}");
    }
    for query in ["a=%", "a=%4", "a=%zz", "a=%00", "%+1"] {
        assert_eq!(verdict(&format!("/p?{query}")), Err(Rejection::TargetPercent), "{query}");
    }
}

#[test]
fn percent_encodings_that_must_be_are_decoded_for_routing() {
    for (target, path) in [
        ("/model/claude-v1%3A0/invoke", "/model/claude-v1:0/invoke"),
        ("/model/claude-v1%3a0/invoke", "/model/claude-v1:0/invoke"),
        ("/m/a%20b", "/m/a b"),
        ("/m/%C3%A9", "/m/\u{e9}"),
        ("/m/a%40b%2Bc", "/m/a@b+c"),
        (
            "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.x/invoke",
            "/model/arn:aws:bedrock:us-east-1:1:inference-profile%2Fus.x/invoke",
        ),
        ("/model/arn:aws:bedrock:e:1:p%2fx/converse", "/model/arn:aws:bedrock:e:1:p%2Fx/converse"),
    ] {
        assert_eq!(verdict(target).as_deref(), Ok(path));
    }
}

#[test]
fn other_spellings_of_a_path_are_refused() {
    use Rejection::*;
    for (target, reason) in [
        ("", TargetForm),
        ("*", TargetForm),
        ("v1/chat", TargetForm),
        ("http://h/v1", TargetForm),
        ("HTTP://h/v1", TargetForm),
        ("h:443", TargetForm),
        ("?a", TargetForm),
        ("#a", TargetForm),
        ("%2Fv1", TargetForm),
        ("\\v1", TargetForm),
        ("!", TargetForm),
        ("//h/v1", EmptySegment),
        ("//", EmptySegment),
        ("/v1//chat", EmptySegment),
        ("/v1/chat//", EmptySegment),
        ("/.", DotSegment),
        ("/..", DotSegment),
        ("/./v1", DotSegment),
        ("/v1/../v1/chat", DotSegment),
        ("/v1/./chat", DotSegment),
        ("/v1/chat/..", DotSegment),
        ("/v1/%2e%2e/chat", NeedlessEncoding),
        ("/v1/%2E/chat", NeedlessEncoding),
        ("/v1/.%2e/chat", NeedlessEncoding),
        ("/v1/..;/chat", MatrixParameter),
        ("/v1/..;a=b/chat", MatrixParameter),
        ("/v1;x/chat", MatrixParameter),
        ("/v1/chat;", MatrixParameter),
        ("/v1/chat%3Ba", EncodedDelimiter),
        ("/v1%2Fchat", EncodedDelimiter),
        ("/v1%2fchat", EncodedDelimiter),
        ("/v1%5Cchat", EncodedDelimiter),
        ("/v1%5c..%5cchat", EncodedDelimiter),
        ("/v1/%252e%252e/chat", EncodedDelimiter),
        ("/v1/chat%3Fa", EncodedDelimiter),
        ("/v1/chat%23a", EncodedDelimiter),
        ("/v1/chat%0d%0aX:y", EncodedDelimiter),
        ("/v1/chat%09", EncodedDelimiter),
        ("/v1/chat%7f", EncodedDelimiter),
        ("/v1/ch%61t", NeedlessEncoding),
        ("/v1/%63hat", NeedlessEncoding),
        ("/v1/chat%2Dx", NeedlessEncoding),
        ("/v1/%7Euser", NeedlessEncoding),
        ("/v1/chat%00", TargetPercent),
        ("/v1/chat%", TargetPercent),
        ("/v1/chat%2", TargetPercent),
        ("/v1/chat%g0", TargetPercent),
        ("/v1/chat%u002f", TargetPercent),
        ("/v1/%c0%af", PathEncoding),
        ("/v1/%c0%ae%c0%ae/x", PathEncoding),
        ("/v1/%ff", PathEncoding),
        ("/v1\\chat", TargetByte),
        ("/v1/..\\chat", TargetByte),
        ("/v1/chat#x", TargetByte),
        ("/v1/chat x", TargetByte),
        ("/v1/chat\t", TargetByte),
        ("/v1/chat\"", TargetByte),
        ("/v1/<chat>", TargetByte),
        ("/v1/{chat}", TargetByte),
        ("/v1/[chat]", TargetByte),
        ("/v1/chat|x", TargetByte),
        ("/v1/chat^", TargetByte),
        ("/v1/chat`", TargetByte),
        ("/v1/\u{e9}", TargetByte),
        ("/v1/\u{ff0f}", TargetByte),
        ("/m/arn%3Aaws%2F..%2Fx", EncodedDelimiter),
        ("/m/arn%3Aaws%2F%2Fx", EncodedDelimiter),
        ("/m/arn%3Aaws%2F/x", EncodedDelimiter),
        ("/m/arn%3Aaws%5Cx", EncodedDelimiter),
        ("/m/xarn%3Aaws%2Fx", EncodedDelimiter),
    ] {
        assert_eq!(verdict(target), Err(reason), "{target}");
    }
}

#[test]
fn the_server_reads_accepted_targets_as_they_are() {
    for byte in 0..=0x7f_u8 {
        let byte = char::from(byte);
        for target in [format!("/a{byte}b"), format!("/{byte}"), format!("/?a{byte}b"), format!("/a?{byte}")]
        {
            if check_target(target.as_bytes()).is_ok() {
                let uri: http::Uri = target.parse().expect("what we accept, the server accepts");
                assert_eq!(uri.path_and_query().map(|target| target.as_str()), Some(target.as_str()));
            }
        }
    }
}

proptest! {
    /// Whatever an upstream does to an accepted path (decode once or twice, resolve dots, merge
    /// slashes), it arrives at our canonical path.
    #[test]
    fn accepted_paths_have_one_reading(
        path in "/([a-z./]|%[0-9a-fA-F]{2}|%2[eEfF]|arn:|[;:\\\\]){0,12}",
    ) {
        if let Ok(canonical) = verdict(&path) {
            let bare = canonical.replace("%2F", "~");
            let is_plain = !bare.contains(['%', '\\', ';', '\0']);
            prop_assert!(is_plain, "{canonical}");
            prop_assert!(!bare.contains("//"));
            prop_assert!(!bare.split(['/', '~']).any(|segment| segment == "." || segment == ".."));
        }
    }
}
