//! Reviews as API servers send them, and bodies that are none.

use super::*;
use crate::inject::settings::Told;
use proptest::prelude::*;

fn settings(file: &str) -> Settings {
    Settings::read(Told { image: Some("bursar:1".to_owned()), file: Some(file.to_owned()) }).unwrap()
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "bot-7d9-", "annotations": {"bursar.dev/inject": "true"}},
        "spec": {"containers": [{"name": "app", "image": "app:1"}]},
    })
}

/// A review of a pod that is made, as Kubernetes 1.30 sends it.
fn review() -> Value {
    json!({
        "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
            "requestResource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "shop", "operation": "CREATE",
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller", "groups": ["a"]},
            "object": pod(), "oldObject": null, "dryRun": false,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    })
}

fn asked(review: &Value) -> Result<Answer, ReviewError> {
    answer(review.to_string().as_bytes(), ByDefault::Without, &settings(""))
}

/// The response in an answer.
fn response(answer: &Answer) -> Value {
    let mut document: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(document["apiVersion"], json!("admission.k8s.io/v1"));
    assert_eq!(document["kind"], json!("AdmissionReview"));
    document["response"].take()
}

fn operations(response: &Value) -> Value {
    assert_eq!(response["patchType"], json!("JSONPatch"));
    serde_json::from_slice(&STANDARD.decode(response["patch"].as_str().unwrap()).unwrap()).unwrap()
}

/// Changes a review at `pointer`, which must be an object's member.
fn with(pointer: &str, value: Value) -> Value {
    let mut made = review();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    made.pointer_mut(parent).unwrap()[name] = value;
    made
}

#[test]
fn a_pod_that_asks_is_answered_with_a_patch_and_its_own_uid() {
    let answer = asked(&review()).unwrap();
    assert_eq!(
        (answer.conclusion.word(), answer.pod.as_str(), answer.dry_run),
        ("injected", "shop/bot-7d9-", false)
    );
    let response = response(&answer);
    assert_eq!(response["uid"], json!("705ab4f5-6393-11e8-b7cc-42010a800002"));
    assert_eq!((&response["allowed"], response.get("warnings")), (&json!(true), None));
    assert_eq!(response["auditAnnotations"], json!({"outcome": "injected"}));
    let operations = operations(&response);
    let paths: Vec<&str> =
        operations.as_array().unwrap().iter().map(|one| one["path"].as_str().unwrap()).collect();
    assert_eq!(
        paths,
        [
            "/spec/containers/0/env",
            "/spec/terminationGracePeriodSeconds",
            "/spec/volumes",
            "/spec/initContainers",
            "/metadata/annotations/bursar.dev~1status",
        ]
    );
}

#[test]
fn a_dry_run_gets_the_same_answer() {
    let dry = asked(&with("/request/dryRun", json!(true))).unwrap();
    assert!(dry.dry_run);
    assert_eq!(dry.body, asked(&review()).unwrap().body);
}

/// Whether a review is allowed without a patch, for this reason, with a warning that says this.
#[track_caller]
fn check_left(review: &Value, outcome: &str, warning: Option<&str>) {
    let answer = asked(review).unwrap();
    assert_eq!(answer.conclusion.word(), outcome);
    let response = response(&answer);
    assert_eq!((&response["allowed"], response.get("patch")), (&json!(true), None), "{response}");
    match (warning, response.get("warnings").and_then(Value::as_array).map(Vec::as_slice)) {
        (None, None) => {}
        (Some(want), Some([only])) => assert!(only.as_str().unwrap().contains(want), "{only}"),
        (want, found) => panic!("{found:?} instead of {want:?}"),
    }
}

#[test]
fn what_is_no_new_pod_is_allowed_and_left_alone() {
    check_left(&with("/request/object/metadata/annotations", json!({})), "not asked", None);
    check_left(&with("/request/operation", json!("UPDATE")), "no creation", None);
    check_left(&with("/request/subResource", json!("ephemeralcontainers")), "no creation", None);
    let deployment = json!({"group": "apps", "version": "v1", "kind": "Deployment"});
    check_left(&with("/request/kind", deployment), "no pod", Some("not into \"apps/v1 Deployment\""));
    check_left(&with("/request/kind", Value::Null), "no pod", Some("not into nothing"));
    check_left(&with("/request/object", Value::Null), "not injected", Some("object is not there"));
    check_left(&with("/request/object", json!(5)), "not injected", Some("object is not an object"));
    check_left(
        &with("/request/object/metadata", json!([])),
        "not injected",
        Some("metadata is not an object"),
    );
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let text = review().to_string().replacen("\"oldObject\":null", &format!("\"oldObject\":{deep}"), 1);
    assert_eq!(
        answer(text.as_bytes(), ByDefault::Without, &settings("")).unwrap().conclusion.word(),
        "injected"
    );
    let text = review().to_string().replacen("\"containers\":[", &format!("\"containers\":[{deep},"), 1);
    let answer = answer(text.as_bytes(), ByDefault::Without, &settings("")).unwrap();
    assert_eq!(answer.conclusion.word(), "not injected");
    assert!(answer.told[0].contains("recursion limit exceeded"), "{:?}", answer.told);
}

#[test]
fn a_mistake_is_warned_of_and_noted_or_refused_as_set() {
    let mut wrong = review();
    wrong["request"]["object"]["metadata"]["annotations"]["bursar.dev/team"] = json!("a\u{7}b");
    let warned = response(&asked(&wrong).unwrap());
    assert_eq!(warned["allowed"], json!(true));
    let [warning] = warned["warnings"].as_array().unwrap().as_slice() else { panic!("{warned}") };
    assert!(warning.as_str().unwrap().starts_with("no sidecar: annotation bursar.dev/team is \"a\\u{7}b\""));
    let noted = operations(&warned);
    assert_eq!(noted[0]["path"], json!("/metadata/annotations/bursar.dev~1status"));
    assert_eq!(noted.as_array().unwrap().len(), 1);

    let refused =
        answer(wrong.to_string().as_bytes(), ByDefault::Without, &settings("on_mistake: refuse")).unwrap();
    assert_eq!(refused.conclusion.word(), "refused");
    let refused = response(&refused);
    assert_eq!((&refused["allowed"], refused.get("patch")), (&json!(false), None));
    assert_eq!((&refused["status"]["code"], &refused["status"]["reason"]), (&json!(422), &json!("Invalid")));
    let message = refused["status"]["message"].as_str().unwrap();
    assert!(message.starts_with("bursar cannot inject its sidecar: annotation bursar.dev/team"), "{message}");
}

#[test]
fn warnings_are_lines_that_api_servers_pass_on() {
    let mut made = review();
    for number in 0..30 {
        let name = format!("bursar.dev/{number}\n{}", "x".repeat(300));
        made["request"]["object"]["metadata"]["annotations"][name] = json!("");
    }
    let answer = asked(&made).unwrap();
    assert_eq!(answer.told.len(), WARNINGS_MAX);
    for told in &answer.told {
        assert!(told.chars().count() <= WARNING_CHARS_MAX + 1 && !told.contains('\n'), "{told}");
    }
}

/// Whether a body is refused for this reason.
#[track_caller]
fn check_refused(body: &[u8], want: &str) {
    let error = answer(body, ByDefault::With, &settings("")).unwrap_err().to_string();
    assert!(error.starts_with(want), "{error}");
    assert!(error.len() < 400, "{error}");
}

#[test]
fn what_is_no_review_is_refused_with_the_reason() {
    let refused = |review: Value, want: &str| check_refused(review.to_string().as_bytes(), want);
    for body in
        [&b""[..], b"{", b"nope", b"[]", b"\xff\xfe", b"null", b"{\"kind\": 5}", &b"[".repeat(1 << 20)]
    {
        check_refused(body, "the body is no admission review: ");
    }
    refused(json!({}), "apiVersion is not there: send admission.k8s.io/v1");
    refused(
        with("/apiVersion", json!("admission.k8s.io/v1beta1")),
        "apiVersion is \"admission.k8s.io/v1beta1\"",
    );
    refused(with("/kind", json!("Pod")), "kind is \"Pod\": send an AdmissionReview");
    refused(with("/kind", Value::Null), "kind is not there");
    refused(with("/request", Value::Null), "the review has no request");
    refused(with("/request/uid", Value::Null), "request.uid is not there");
    refused(with("/request/uid", json!("")), "request.uid is \"\"");
    refused(with("/request/uid", json!("x".repeat(200))), "request.uid is \"xxx");
    refused(with("/request/uid", json!(5)), "the body is no admission review: invalid type");
    refused(with("/request/kind", json!("Pod")), "the body is no admission review: invalid type");
    refused(with("/request", json!("x".repeat(5_000))), "the body is no admission review: invalid type");
    let twice = review().to_string().replacen("\"uid\"", "\"uid\":\"x\",\"uid\"", 1);
    check_refused(twice.as_bytes(), "the body is no admission review: duplicate field");
}

proptest! {
    #[test]
    fn no_damage_to_a_review_makes_it_panic_or_answer_without_its_uid(
        at in any::<prop::sample::Index>(),
        length in 0_usize..40,
        with in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut body = review().to_string().into_bytes();
        let at = at.index(body.len());
        let end = (at + length).min(body.len());
        body.splice(at..end, with);
        if let Ok(answer) = answer(&body, ByDefault::With, &settings("")) {
            prop_assert!(response(&answer)["uid"].is_string());
        }
    }
}
