//! Files of settings, right and wrong.

use super::*;

fn read(image: Option<&str>, file: &str) -> Result<Settings, SettingsErrors> {
    Settings::read(Told { image: image.map(str::to_owned), file: Some(file.to_owned()) })
}

/// The mistakes that are told, with an image on the command line.
#[track_caller]
fn check(file: &str, want: &[&str]) {
    let errors = read(Some("bursar:1"), file).unwrap_err().0;
    assert_eq!(errors.len(), want.len(), "{errors:?}");
    for (error, want) in errors.iter().zip(want) {
        assert!(error.contains(want), "{error:?} does not say {want:?}");
    }
}

#[test]
fn nothing_but_an_image_is_needed_and_the_command_line_wins() {
    let usual = Settings::read(Told { image: Some("bursar:1".to_owned()), file: None }).unwrap();
    assert_eq!((usual.image.as_str(), usual.image_pull_policy.as_str()), ("bursar:1", "IfNotPresent"));
    assert_eq!((usual.drain_seconds, usual.host_network, usual.on_mistake), (30, false, OnMistake::Warn));
    assert_eq!(usual.image_pull_secrets, Vec::<String>::new());
    assert_eq!((&usual.config_map, &usual.admin_secret), (&None, &None));
    assert_eq!(read(None, "image: bursar:1\n"), Ok(usual.clone()));
    assert_eq!(read(Some("bursar:1"), "image: bursar:2\nconfig_map: ''\nadmin_secret: ''"), Ok(usual));
    let error = read(None, "").unwrap_err().to_string();
    assert_eq!(
        error,
        "the settings of the injection have a mistake: image: is not set: name the sidecar's image with --image \
         or in the file"
    );
}

#[test]
fn everything_can_be_said_in_the_file() {
    let file = "
        image: bursar:1
        image_pull_policy: Always
        image_pull_secrets: [registry, mirror.example, registry]
        config_map: bot
        admin_secret: tokens.example
        bind_address: '[::]'
        data_volume: { hostPath: { path: /data, type: DirectoryOrCreate } }
        resources: { limits: { memory: 1Gi, cpu: 2 } }
        base_urls: { GROQ_BASE_URL: /groq }
        env: { BURSAR_LEDGER_FAIL: closed, BURSAR_SERVER_WORKERS: 2, BURSAR_BUILTIN_ROUTES: true }
        drain_seconds: 600
        host_network: true
        on_mistake: refuse
    ";
    let all = read(None, file).unwrap();
    assert_eq!((all.image_pull_policy.as_str(), all.bind_address.as_str()), ("Always", "[::]"));
    assert_eq!(
        (all.config_map.as_deref(), all.admin_secret.as_deref()),
        (Some("bot"), Some("tokens.example"))
    );
    assert_eq!(all.image_pull_secrets, ["registry", "mirror.example"]);
    assert_eq!(all.data_volume["hostPath"]["path"], json!("/data"));
    assert_eq!(all.resources, json!({"limits": {"memory": "1Gi", "cpu": 2}}));
    assert_eq!(all.base_urls["GROQ_BASE_URL"], "/groq");
    let env: Vec<(&str, &str)> =
        all.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(
        env,
        [("BURSAR_BUILTIN_ROUTES", "true"), ("BURSAR_LEDGER_FAIL", "closed"), ("BURSAR_SERVER_WORKERS", "2")]
    );
    assert_eq!((all.drain_seconds, all.host_network, all.on_mistake), (600, true, OnMistake::Refuse));
    let checked = all.variables_to_check();
    assert_eq!(checked.get("BURSAR_ADMIN_LISTEN").map(String::as_str), Some("127.0.0.1:4142"));
    assert!(!checked.contains_key("BURSAR_CONFIG") && !checked.contains_key("BURSAR_ADMIN_TOKEN_FILE"));
}

#[test]
fn mistakes_name_key_value_and_remedy_all_at_once() {
    check("imag: x", &["unknown field `imag`"]);
    check("[", &["line "]);
    check("- a", &["the file is no map of keys"]);
    check("on_mistake: ignore", &["unknown variant `ignore`, expected `warn` or `refuse`"]);
    check("drain_seconds: 0", &["drain_seconds: 0 is not 1 to 600"]);
    check("data_volume: { emptyDir: {}, name: x }", &["data_volume: is no source of a volume"]);
    check("data_volume: { emptyDir: 5 }", &["data_volume"]);
    check("resources: { limit: { memory: 1Gi } }", &["resources.limit: is not known"]);
    check("resources: { limits: [1Gi] }", &["resources.limits: is no map of quantities"]);
    check("base_urls: { X: 'http://example.org' }", &["base_urls.X: \"http://example.org\" is no path"]);
    check("base_urls: { 1X: /x }", &["base_urls: \"1X\""]);
    check("env: { BURSAR_LISTEN: '0.0.0.0:1' }", &["env.BURSAR_LISTEN: the injection sets it"]);
    check("env: { A: [b], 'a b': c }", &["env.A: is not one value", "env: \"a b\""]);
    check(
        "image_pull_policy: Sometimes\nbind_address: 10.0.0.1\nconfig_map: A_b\nadmin_secret: -a",
        &[
            "image_pull_policy: \"Sometimes\" is not one of IfNotPresent, Always, Never",
            "bind_address: \"10.0.0.1\"",
            "config_map: \"A_b\" can be no object's name",
            "admin_secret: \"-a\"",
        ],
    );
    check(
        "image_pull_secrets: [Registry, fine, '', a..b, { name: pull }, 5]",
        &[
            "image_pull_secrets: \"Registry\" can be no Secret's name: use a-z, 0-9, `-` and `.`",
            "image_pull_secrets: \"\" can be",
            "image_pull_secrets: \"a..b\" can be",
            "image_pull_secrets: {\"name\":\"pull\"} is no name: write the Secret's name alone",
            "image_pull_secrets: 5 is no name",
        ],
    );
    check("image_pull_secrets: pull", &["image_pull_secrets: \"pull\" is no list: write names of Secrets"]);
    let long = format!("image_pull_secrets: [{}]", "a".repeat(254));
    check(&long, &["at most 253"]);
    let error = read(Some("bursar 1"), "").unwrap_err().to_string();
    assert!(error.contains("image: \"bursar 1\" is no image"), "{error}");
}
