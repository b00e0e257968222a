//! Pods and what becomes of them: each outcome, and what holds for every pod.

use super::*;
use crate::config::{Config, Overrides, Sources};
use crate::inject::patch::apply::apply;
use crate::inject::settings::Told;
use proptest::prelude::*;
use std::collections::BTreeMap;

const IMAGE: &str = "registry.example.com/bursar:0.1.0";

fn settings(file: &str) -> Settings {
    Settings::read(Told { image: Some(IMAGE.to_owned()), file: Some(file.to_owned()) }).unwrap()
}

/// A pod with these annotations and this spec.
fn pod(annotations: Value, spec: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "bot-", "annotations": annotations}, "spec": spec,
    })
}

/// A pod that asks, with more annotations and one container.
fn asking(more: &[(&str, &str)]) -> Value {
    let mut annotations = json!({"bursar.dev/inject": "true"});
    for (name, value) in more {
        annotations[format!("bursar.dev/{name}")] = json!(value);
    }
    pod(annotations, json!({"containers": [{"name": "app", "image": "app:1"}]}))
}

/// The pod as it becomes, which must be injected without a warning.
fn injected(pod: &Value, settings: &Settings) -> Value {
    let Outcome::Injected { patch, warnings } = decide(pod, ByDefault::Without, settings) else {
        panic!("not injected: {:?}", decide(pod, ByDefault::Without, settings));
    };
    assert_eq!(warnings, Vec::<String>::new());
    apply(pod, &patch).unwrap()
}

/// Whether a decision is as wanted: the word of what is left, `injected`, or the beginning of the only mistake.
#[track_caller]
fn check(pod: &Value, default: ByDefault, settings: &Settings, want: &str) {
    let outcome = decide(pod, default, settings);
    match &outcome {
        Outcome::Left(left) => assert_eq!(left.word(), want, "{pod}"),
        Outcome::Injected { .. } => assert_eq!("injected", want, "{pod}"),
        Outcome::Mistaken { mistakes, patch } => {
            let [only] = mistakes.as_slice() else { panic!("{mistakes:?}") };
            let said = only.to_string();
            assert!(said.starts_with(want), "{said}");
            let noted = apply(pod, patch).unwrap();
            let status = &noted["metadata"]["annotations"][STATUS];
            assert_eq!(*status, json!(format!("not injected: {said}")));
            let again = decide(&noted, default, settings);
            let nothing = Patch::default();
            assert_eq!(again, Outcome::Mistaken { mistakes: mistakes.clone(), patch: nothing });
        }
    }
}

#[test]
fn the_annotation_and_the_namespace_decide_who_gets_a_sidecar() {
    let settings = settings("");
    let bare = json!({"containers": [{"name": "app"}]});
    let with = |annotations| pod(annotations, bare.clone());
    for (pod, without, by_namespace) in [
        (with(json!({"bursar.dev/inject": "true"})), "injected", "injected"),
        (with(json!({"bursar.dev/inject": "false", "bursar.dev/team": ""})), "opted out", "opted out"),
        (with(json!({})), "not asked", "injected"),
        (with(json!({"bursar.dev/inject": null})), "not asked", "injected"),
        (with(Value::Null), "not asked", "injected"),
        (json!({"spec": bare}), "not asked", "injected"),
        (json!({"metadata": null, "spec": bare}), "not asked", "injected"),
    ] {
        check(&pod, ByDefault::Without, &settings, without);
        check(&pod, ByDefault::With, &settings, by_namespace);
    }
}

#[test]
fn pods_that_cannot_have_one_are_left_alone_unless_they_asked() {
    let usual = settings("");
    let own = |list: &str| {
        let mut made = asking(&[]);
        made["spec"][list] = json!([{"name": "bursar"}]);
        made
    };
    check(&own("initContainers"), ByDefault::Without, &usual, "already there");
    check(&own("containers"), ByDefault::With, &usual, "already there");
    let mut mirror = asking(&[]);
    mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"] = json!("abc");
    check(&mirror, ByDefault::Without, &usual, "mirror pod");

    let with = |key: &str, value: Value, asks: bool| {
        let mut made = asking(&[]);
        made["spec"][key] = value;
        if !asks {
            made["metadata"]["annotations"] = json!({});
        }
        made
    };
    check(&with("hostNetwork", json!(true), false), ByDefault::With, &usual, "host network");
    check(
        &with("hostNetwork", json!(true), true),
        ByDefault::With,
        &usual,
        "the pod is on its node's network",
    );
    check(&with("hostNetwork", json!(false), true), ByDefault::Without, &usual, "injected");
    let allowed = settings("host_network: true");
    check(&with("hostNetwork", json!(true), true), ByDefault::Without, &allowed, "injected");
    check(&with("hostNetwork", json!(true), false), ByDefault::With, &allowed, "injected");
    for (key, value) in
        [("os", json!({"name": "windows"})), ("nodeSelector", json!({"kubernetes.io/os": "windows"}))]
    {
        check(&with(key, value.clone(), false), ByDefault::With, &usual, "windows");
        check(&with(key, value, true), ByDefault::Without, &usual, "the pod is for Windows");
    }
}

#[test]
fn each_mistake_is_told_with_its_value_and_remedy_and_nothing_is_done() {
    let usual = settings("");
    let long = "x".repeat(300);
    for (annotation, value, want) in [
        ("inject", "yes", "annotation bursar.dev/inject is \"yes\": write \"true\" or \"false\""),
        ("inject", "True", "annotation bursar.dev/inject is \"True\""),
        ("inject", "", "annotation bursar.dev/inject is \"\""),
        ("team", " ", "annotation bursar.dev/team is \" \": it is empty; write one short name"),
        ("team", "a\nb", "annotation bursar.dev/team is \"a\\nb\": it contains a control"),
        ("workload", &long, "annotation bursar.dev/workload is \"xxxxxxxxxx"),
        ("config", "Not_A_Name", "annotation bursar.dev/config is \"Not_A_Name\", which no ConfigMap"),
        ("config", "", "annotation bursar.dev/config is \"\""),
        ("config", "a..b", "annotation bursar.dev/config"),
        ("base-urls", "no", "annotation bursar.dev/base-urls is \"no\""),
        ("containers", " , ", "annotation bursar.dev/containers names no container"),
        (
            "containers",
            "app,web",
            "annotation bursar.dev/containers names \"web\", which the pod does not have: it has \"app\"",
        ),
    ] {
        check(&asking(&[(annotation, value)]), ByDefault::Without, &usual, want);
    }
    let mut number = asking(&[]);
    number["metadata"]["annotations"]["bursar.dev/team"] = json!(7);
    check(&number, ByDefault::Without, &usual, "annotation bursar.dev/team is not text");
    number["metadata"]["annotations"]["bursar.dev/inject"] = json!(true);
    check(&number, ByDefault::With, &usual, "annotation bursar.dev/inject is not text");

    let of = |spec: Value| pod(json!({"bursar.dev/inject": "true"}), spec);
    for (spec, want) in [
        (json!(7), "the pod cannot be read: spec is not an object"),
        (json!({"containers": {}}), "the pod cannot be read: spec.containers is not a list of objects"),
        (json!({"containers": ["app"]}), "the pod cannot be read: spec.containers"),
        (json!({"initContainers": 1}), "the pod cannot be read: spec.initContainers"),
        (json!({"volumes": "all"}), "the pod cannot be read: spec.volumes"),
        (json!({"containers": [{"env": 5}]}), "the pod cannot be read: spec.containers[0].env is"),
        (json!({"containers": [{"ports": [5]}]}), "the pod cannot be read: spec.containers[0].ports is"),
        (json!({"terminationGracePeriodSeconds": -1}), "the pod cannot be read: spec.terminationGrace"),
        (json!({"terminationGracePeriodSeconds": u64::MAX}), "the pod cannot be read: spec.terminationGrace"),
        (
            json!({"containers": [{"name": "web", "ports": [{"containerPort": 80}, {"containerPort": 4142}]}]}),
            "container \"web\" has port 4142, which is the sidecar's",
        ),
        (
            json!({"volumes": [{"name": "bursar-data", "persistentVolumeClaim": {"claimName": "x"}}]}),
            "the ledger's volume belongs to root",
        ),
    ] {
        check(&of(spec), ByDefault::Without, &usual, want);
    }
    let taken = json!({"volumes": [{"name": "bursar-config", "emptyDir": {}}]});
    check(&of(taken.clone()), ByDefault::Without, &usual, "injected");
    let mapped = settings("config_map: bot");
    check(&of(taken), ByDefault::Without, &mapped, "the pod has a volume bursar-config already");
    let claimed = settings("data_volume: { ephemeral: { volumeClaimTemplate: {} } }");
    check(&asking(&[]), ByDefault::Without, &claimed, "the ledger's volume belongs to root");
}

#[test]
fn secrets_for_the_registry_are_added_to_those_of_the_pod_each_once() {
    let set = settings("image_pull_secrets: [registry, mirror]");
    let with = |own: Value| {
        let mut made = asking(&[]);
        made["spec"]["imagePullSecrets"] = own;
        made
    };
    let ours = json!([{"name": "registry"}, {"name": "mirror"}]);
    assert_eq!(injected(&asking(&[]), &set)["spec"]["imagePullSecrets"], ours);
    for (own, want) in [
        (Value::Null, ours.clone()),
        (json!([]), ours.clone()),
        (json!([{"name": "own"}]), json!([{"name": "own"}, {"name": "registry"}, {"name": "mirror"}])),
        (json!([{"name": "mirror"}, {}]), json!([{"name": "mirror"}, {}, {"name": "registry"}])),
        (ours.clone(), ours.clone()),
    ] {
        let made = injected(&with(own.clone()), &set);
        assert_eq!(made["spec"]["imagePullSecrets"], want, "{own}");
        let untouched = injected(&with(own.clone()), &settings(""));
        assert_eq!(untouched["spec"]["imagePullSecrets"], own);
    }
    assert_eq!(injected(&asking(&[]), &settings(""))["spec"].get("imagePullSecrets"), None);
    let want = "the pod cannot be read: spec.imagePullSecrets is not a list of objects";
    check(&with(json!(["own"])), ByDefault::Without, &set, want);
}

#[test]
fn all_mistakes_are_told_at_once() {
    let mut made = asking(&[("team", ""), ("workload", ""), ("containers", "no")]);
    made["spec"]["hostNetwork"] = json!(true);
    let Outcome::Mistaken { mistakes, patch } = decide(&made, ByDefault::Without, &settings("")) else {
        panic!("injected");
    };
    assert_eq!(mistakes.len(), 3, "{mistakes:?}");
    let noted = apply(&made, &patch).unwrap();
    let status = noted["metadata"]["annotations"][STATUS].as_str().unwrap();
    assert!(status.starts_with("not injected: the pod is on its node's network"), "{status}");
    assert!(status.ends_with("(and 2 more)"), "{status}");
}

#[test]
fn what_is_no_pod_at_all_is_told_and_not_changed() {
    for document in [
        json!(null),
        json!([]),
        json!("pod"),
        json!({"metadata": 5}),
        json!({"metadata": {"annotations": []}}),
    ] {
        match decide(&document, ByDefault::With, &settings("")) {
            Outcome::Mistaken { mistakes, patch } => {
                assert!(mistakes[0].to_string().starts_with("the pod cannot be read"), "{mistakes:?}");
                assert!(patch.is_empty() || document.is_object(), "{document}");
            }
            other => panic!("{document}: {other:?}"),
        }
    }
}

#[test]
fn a_sidecar_comes_first_with_all_it_needs() {
    let settings = settings("config_map: support-bot-bursar\nadmin_secret: bursar-admin\n");
    let mut before = asking(&[("team", "checkout"), ("workload", "support-bot")]);
    before["spec"]["initContainers"] = json!([{"name": "migrate", "image": "app:1"}]);
    before["spec"]["volumes"] = json!([{"name": "scratch", "emptyDir": {}}]);
    let after = injected(&before, &settings);
    let spec = &after["spec"];
    let names = |list: &str| -> Vec<&str> {
        spec[list].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect()
    };
    assert_eq!(names("initContainers"), ["bursar", "migrate"]);
    assert_eq!(names("volumes"), ["scratch", "bursar-data", "bursar-config", "bursar-admin"]);
    assert_eq!(spec["terminationGracePeriodSeconds"], json!(75));
    assert_eq!(after["metadata"]["annotations"][STATUS], json!("injected"));
    let sidecar = &spec["initContainers"][0];
    assert_eq!(sidecar["restartPolicy"], json!("Always"));
    assert_eq!(sidecar["image"], json!(IMAGE));
    assert_eq!(sidecar["ports"], json!([{"name": "admin", "containerPort": 4142, "protocol": "TCP"}]));
    assert_eq!(sidecar["readinessProbe"]["httpGet"], json!({"path": "/readyz", "port": "admin"}));
    let variables = variables_of(sidecar);
    for (name, value) in [
        ("BURSAR_CONFIG", "/etc/bursar/bursar.yaml"),
        ("BURSAR_LISTEN", "127.0.0.1:4141"),
        ("BURSAR_ADMIN_LISTEN", "0.0.0.0:4142"),
        ("BURSAR_ADMIN_TOKEN_FILE", "/run/secrets/bursar-admin/token"),
        ("BURSAR_IDENTITY_TEAM", "checkout"),
        ("BURSAR_IDENTITY_WORKLOAD", "support-bot"),
    ] {
        assert_eq!(variables.get(name).map(String::as_str), Some(value), "{name}");
    }
    let mounts = sidecar["volumeMounts"].as_array().unwrap();
    let mounted: Vec<&str> = mounts.iter().map(|mount| mount["name"].as_str().unwrap()).collect();
    assert_eq!(mounted, ["bursar-data", "bursar-config", "bursar-admin"]);
}

#[test]
fn the_default_needs_nothing_in_the_namespace_and_its_configuration_is_right() {
    let after = injected(&asking(&[("team", "checkout"), ("workload", "support-bot")]), &settings(""));
    let spec = &after["spec"];
    assert_eq!(spec["volumes"], json!([{"emptyDir": {"sizeLimit": "1Gi"}, "name": "bursar-data"}]));
    let sidecar = &spec["initContainers"][0];
    assert_eq!(sidecar.get("ports"), None);
    let alive = ["/usr/local/bin/bursar", "ledger", "stats", "--alive"];
    let ready = ["/usr/local/bin/bursar", "ledger", "stats", "--ready"];
    for (probe, command) in
        [("startupProbe", &ready[..]), ("livenessProbe", &alive[..]), ("readinessProbe", &ready[..])]
    {
        assert_eq!(sidecar[probe]["exec"]["command"], json!(command), "{probe}");
    }
    let variables = variables_of(sidecar);
    let config = Config::load(Sources {
        file: None,
        text: None,
        env: &|name| variables.get(name).cloned(),
        env_names: variables.keys().cloned().collect(),
        overrides: Overrides::default(),
    })
    .unwrap();
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    assert_eq!(config.identity.team.as_ref().map(|team| team.as_str()), Some("checkout"));
    assert_eq!(config.identity.workload.as_ref().map(|workload| workload.as_str()), Some("support-bot"));
    assert!(config.listen.ip().is_loopback() && config.admin.listen.ip().is_loopback());
    assert_eq!(config.server.timeouts.drain.as_secs(), 30);
    assert_eq!(config.ledger.bytes_max, Some(921 << 20), "nine tenths of the emptyDir");
}

#[test]
fn a_bound_that_is_set_and_a_volume_of_the_pod_s_own_are_left_alone() {
    let bound = |pod: &Value, file: &str| {
        let after = injected(pod, &settings(file));
        variables_of(&after["spec"]["initContainers"][0]).remove("BURSAR_LEDGER_BYTES_MAX")
    };
    let told = bound(&asking(&[]), "env: { BURSAR_LEDGER_BYTES_MAX: 100MiB }\n");
    assert_eq!(told.as_deref(), Some("100MiB"));
    let mut own = asking(&[]);
    own["spec"]["volumes"] = json!([{"name": "bursar-data", "emptyDir": {}}]);
    assert_eq!(bound(&own, ""), None);
}

fn variables_of(container: &Value) -> BTreeMap<String, String> {
    let list = container["env"].as_array().unwrap();
    let pair = |one: &Value| {
        let text = |key: &str| one[key].as_str().unwrap().to_owned();
        // As a kubelet reads it.
        (text("name"), text("value").replace("$$", "$"))
    };
    list.iter().map(pair).collect()
}

#[test]
fn annotations_win_over_settings_and_are_not_expanded() {
    let file = "config_map: usual\nenv: { BURSAR_IDENTITY_TEAM: platform, BURSAR_LEDGER_FAIL: closed }\n";
    let own = asking(&[("team", "$(HOSTNAME) $5"), ("config", "own.config")]);
    let after = injected(&own, &settings(file));
    let sidecar = &after["spec"]["initContainers"][0];
    let told = sidecar["env"].as_array().unwrap().iter().find(|one| one["name"] == "BURSAR_IDENTITY_TEAM");
    assert_eq!(told.unwrap()["value"], json!("$$(HOSTNAME) $$5"));
    assert_eq!(variables_of(sidecar)["BURSAR_LEDGER_FAIL"], "closed");
    let volumes = after["spec"]["volumes"].as_array().unwrap();
    assert!(volumes.contains(&json!({"name": "bursar-config", "configMap": {"name": "own.config"}})));
    let after = injected(&asking(&[]), &settings(file));
    assert_eq!(variables_of(&after["spec"]["initContainers"][0])["BURSAR_IDENTITY_TEAM"], "platform");
}

#[test]
fn base_urls_are_set_where_they_are_not_and_only_where_they_are_wanted() {
    let openai = json!({"name": "OPENAI_BASE_URL", "value": "http://127.0.0.1:4141/openai/v1"});
    let anthropic = json!({"name": "ANTHROPIC_BASE_URL", "value": "http://127.0.0.1:4141/anthropic"});
    let own = json!({"name": "OPENAI_BASE_URL", "valueFrom": {"secretKeyRef": {"name": "x", "key": "y"}}});
    let spec = json!({
        "initContainers": [{"name": "migrate"}],
        "containers": [
            {"name": "app"},
            {"name": "web", "env": [own]},
            {"name": "empty", "env": []},
            {"name": "null", "env": null},
            {"name": "both", "env": [{"name": "ANTHROPIC_BASE_URL", "value": ""}, own]},
        ],
    });
    let env = |more: &[(&str, &str)], settings: &Settings| -> Vec<Value> {
        let mut made = asking(more);
        made["spec"] = spec.clone();
        let after = injected(&made, settings);
        let all =
            ["containers", "initContainers"].map(|list| after["spec"][list].as_array().unwrap().clone());
        all.concat().iter().filter(|one| one["name"] != "bursar").map(|one| one["env"].clone()).collect()
    };
    let both = json!([anthropic, openai]);
    let kept = json!([{"name": "ANTHROPIC_BASE_URL", "value": ""}, own]);
    let usual = settings("");
    let want = [&both, &json!([own, anthropic]), &both, &both, &kept, &Value::Null];
    assert_eq!(env(&[], &usual).iter().collect::<Vec<_>>(), want);
    let none = [&Value::Null, &json!([own]), &json!([]), &Value::Null, &kept, &Value::Null];
    assert_eq!(env(&[("base-urls", "false")], &usual).iter().collect::<Vec<_>>(), none);
    assert_eq!(env(&[], &settings("base_urls: {}")).iter().collect::<Vec<_>>(), none);
    let chosen = [&Value::Null, &json!([own]), &both, &Value::Null, &kept, &both];
    assert_eq!(env(&[("containers", "migrate, empty")], &usual).iter().collect::<Vec<_>>(), chosen);
    let groq = env(&[("containers", "app")], &settings("base_urls: { GROQ_BASE_URL: /groq }"));
    assert_eq!(groq[0], json!([{"name": "GROQ_BASE_URL", "value": "http://127.0.0.1:4141/groq"}]));
}

#[test]
fn a_claim_of_the_pods_own_keeps_the_ledger() {
    let mut before = asking(&[]);
    before["spec"]["volumes"] =
        json!([{"name": "bursar-data", "persistentVolumeClaim": {"claimName": "d-0"}}]);
    before["spec"]["securityContext"] = json!({"fsGroup": 65532});
    let after = injected(&before, &settings(""));
    assert_eq!(after["spec"]["volumes"], before["spec"]["volumes"]);
    assert_eq!(after["spec"]["initContainers"][0]["volumeMounts"][0]["name"], json!("bursar-data"));
}

#[test]
fn unknown_annotations_and_variables_from_elsewhere_are_warned_of() {
    let mut made = asking(&[("teem", "checkout"), ("note", "x")]);
    made["spec"]["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "app"}}]);
    let Outcome::Injected { warnings, .. } = decide(&made, ByDefault::Without, &settings("")) else {
        panic!("not injected");
    };
    let [teem, note, env] = warnings.as_slice() else { panic!("{warnings:?}") };
    assert_eq!(teem, "annotation \"bursar.dev/teem\" means nothing here: did you mean bursar.dev/team?");
    assert!(note.starts_with("annotation \"bursar.dev/note\" means nothing here"), "{note}");
    assert!(env.contains("ANTHROPIC_BASE_URL and OPENAI_BASE_URL win over"), "{env}");
}

#[test]
fn a_long_grace_is_kept_and_lengthened() {
    let mut made = asking(&[]);
    made["spec"]["terminationGracePeriodSeconds"] = json!(600);
    let after = injected(&made, &settings("drain_seconds: 120"));
    assert_eq!(after["spec"]["terminationGracePeriodSeconds"], json!(735));
    made["spec"]["terminationGracePeriodSeconds"] = json!(0);
    assert_eq!(injected(&made, &settings(""))["spec"]["terminationGracePeriodSeconds"], json!(45));
}

// === what holds for every pod

/// Whether everything in `before` is in `after`, items of lists in their order.
fn keeps(before: &Value, after: &Value) -> bool {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => before.iter().all(|(name, value)| {
            let may_change = ["terminationGracePeriodSeconds", STATUS].contains(&name.as_str());
            match after.get(name) {
                Some(now) => may_change || keeps(value, now) || value.is_null(),
                None => false,
            }
        }),
        (Value::Array(before), Value::Array(after)) => {
            let mut rest = after.iter();
            before.iter().all(|item| rest.any(|now| keeps(item, now)))
        }
        _ => before == after,
    }
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("app".to_owned()),
        Just("bursar-data".to_owned()),
        Just("bursar".to_owned()),
        "[a-z]{1,3}",
        "[a-z/~.%\"\\\\é]{0,6}",
    ]
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        name().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name(), inner, 0..4).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

/// Mostly `good`, now and then nothing, null or anything else.
fn mostly(good: impl Strategy<Value = Value>) -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        20 => good.prop_map(Some),
        6 => Just(None),
        2 => Just(Some(Value::Null)),
        1 => any_value().prop_map(Some),
    ]
}

/// An object of those members that are there.
fn object(members: Vec<(&'static str, Option<Value>)>) -> Value {
    members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

fn annotations() -> impl Strategy<Value = Value> {
    let flag = || prop_oneof![6 => Just("true"), 1 => Just("false"), 1 => Just("on")].prop_map(Value::from);
    let text = || name().prop_map(Value::from);
    let ours = (
        mostly(flag()),
        mostly(text()),
        mostly(text()),
        mostly(text()),
        mostly(Just(json!("app"))),
        mostly(flag()),
        mostly(text()),
        any_value(),
    );
    ours.prop_map(|(inject, team, workload, config, containers, base_urls, status, other)| {
        object(vec![
            ("bursar.dev/inject", inject),
            ("bursar.dev/team", team),
            ("bursar.dev/workload", workload),
            ("bursar.dev/config", config),
            ("bursar.dev/containers", containers),
            ("bursar.dev/base-urls", base_urls),
            ("bursar.dev/status", status),
            ("example.org/~other", Some(other)),
        ])
    })
}

fn container() -> impl Strategy<Value = Value> {
    let variable = prop_oneof![
        Just(json!({"name": "OPENAI_BASE_URL", "value": "mine"})),
        name().prop_map(|name| json!({"name": name})),
    ];
    let port = prop_oneof![Just(80), Just(4141), 1..9000].prop_map(|port| json!({"containerPort": port}));
    let list = |item| prop::collection::vec(item, 0..3).prop_map(Value::from);
    let variables = prop::collection::vec(variable, 0..3).prop_map(Value::from);
    (mostly(name().prop_map(Value::from)), mostly(variables), mostly(list(port)), any_value()).prop_map(
        |(name, env, ports, other)| {
            object(vec![("name", name), ("env", env), ("ports", ports), ("other", Some(other))])
        },
    )
}

fn any_pod() -> impl Strategy<Value = Value> {
    let containers = || mostly(prop::collection::vec(container(), 0..3).prop_map(Value::from));
    let volume = name().prop_map(|name| json!({"name": name, "emptyDir": {}}));
    let secret = prop_oneof![Just("a".to_owned()), name()].prop_map(|name| json!({"name": name}));
    let spec = (
        containers(),
        containers(),
        mostly(prop::collection::vec(volume, 0..3).prop_map(Value::from)),
        mostly((0_u64..1_000).prop_map(Value::from)),
        mostly(prop_oneof![6 => Just(false), 1 => Just(true)].prop_map(Value::from)),
        mostly(prop::collection::vec(secret, 0..3).prop_map(Value::from)),
        any_value(),
    );
    let spec = spec.prop_map(|(init_containers, containers, volumes, grace, host, secrets, other)| {
        object(vec![
            ("initContainers", init_containers),
            ("containers", containers),
            ("volumes", volumes),
            ("terminationGracePeriodSeconds", grace),
            ("hostNetwork", host),
            ("imagePullSecrets", secrets),
            ("other", Some(other)),
        ])
    });
    let metadata = (mostly(annotations()), any_value()).prop_map(|(annotations, labels)| {
        object(vec![("annotations", annotations), ("labels", Some(labels))])
    });
    (mostly(metadata), mostly(spec), any_value()).prop_map(|(metadata, spec, other)| {
        object(vec![("metadata", metadata), ("spec", spec), ("other", Some(other))])
    })
}

fn any_settings() -> impl Strategy<Value = Settings> {
    prop_oneof![
        Just(""),
        Just("config_map: a\nadmin_secret: b"),
        Just("host_network: true\nbase_urls: {}"),
        Just("data_volume: { ephemeral: {} }"),
        Just("image_pull_secrets: [a, b]"),
    ]
    .prop_map(settings)
}

proptest! {
    #[test]
    fn a_patch_applies_keeps_what_was_there_and_is_made_once(
        pod in any_pod(),
        default in prop_oneof![Just(ByDefault::Without), Just(ByDefault::With)],
        settings in any_settings(),
    ) {
        let (patch, is_injected) = match decide(&pod, default, &settings) {
            Outcome::Left(_) => return Ok(()),
            Outcome::Injected { patch, .. } => (patch, true),
            Outcome::Mistaken { mistakes, patch } => {
                prop_assert!(!mistakes.is_empty());
                (patch, false)
            }
        };
        let after = apply(&pod, &patch).unwrap();
        prop_assert!(keeps(&pod, &after), "{pod}\n{after}");
        prop_assert_eq!(is_injected, after["spec"]["initContainers"][0]["name"] == "bursar");
        match decide(&after, default, &settings) {
            Outcome::Left(left) => prop_assert!(is_injected && left == Left::AlreadyThere),
            Outcome::Mistaken { patch, .. } => prop_assert!(!is_injected && patch.is_empty()),
            Outcome::Injected { .. } => prop_assert!(false, "injected twice: {after}"),
        }
    }

    #[test]
    fn nothing_that_calls_itself_a_pod_is_too_odd(
        pod in any_value(),
        default in prop_oneof![Just(ByDefault::Without), Just(ByDefault::With)],
    ) {
        match decide(&pod, default, &settings("")) {
            Outcome::Left(_) => {}
            Outcome::Injected { patch, .. } | Outcome::Mistaken { patch, .. } => {
                prop_assert!(apply(&pod, &patch).is_ok(), "{pod}");
            }
        }
    }
}
