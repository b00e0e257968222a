//! What is left of secrets in this process's memory when nobody has them any more.
//!
//! The needle is never written down as it is: neither in the program nor in memory is there another copy of it.
//!
//! Not here: what leaves the process (`proxy/tests/otlp.rs`, `proxy/tests/hostile_peers.rs`), buffers of HTTP and
//! TLS, which are not wiped (`docs/guide/security.md`).

use bursar_tests::Setup;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Each byte of the secret, turned round: 40 letters.
const HIDDEN: [u8; 40] = hidden();

const fn hidden() -> [u8; 40] {
    let (mut bytes, mut at) = ([0; 40], 0);
    while at < bytes.len() {
        // Letters in no order that anything else has.
        bytes[at] = !(b'a' + ((at * at * 7 + at * 3 + 11) % 26) as u8);
        at += 1;
    }
    bytes
}

/// Writes the secret into a file, a byte at a time.
fn write_secret(path: &Path) {
    let mut file = File::create(path).unwrap();
    for byte in HIDDEN {
        file.write_all(&[!byte]).unwrap();
    }
}

/// How often the secret is in memory that this process can write.
fn copies() -> usize {
    const PIECE: usize = 1 << 20;
    let memory = File::open("/proc/self/mem").unwrap();
    // A piece overlaps the next, so that nothing is missed between them.
    let mut buffer = vec![0_u8; PIECE + HIDDEN.len()];
    let own = buffer.as_ptr() as u64;
    let mut found = 0;
    for line in std::fs::read_to_string("/proc/self/maps").unwrap().lines() {
        let mut fields = line.split(' ');
        let (range, rights) = (fields.next().unwrap(), fields.next().unwrap());
        if !rights.starts_with("rw") || line.ends_with("[vvar]") {
            continue;
        }
        let (from, to) = range.split_once('-').unwrap();
        let (mut from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
        while from < to {
            let length = usize::try_from(to - from).unwrap().min(buffer.len());
            // Memory that was given back meanwhile holds nothing.
            let read = memory.read_at(&mut buffer[..length], from).unwrap_or(0);
            let places = buffer[..read].iter().enumerate().filter(|(_, byte)| **byte == !HIDDEN[0]);
            for (at, _) in places {
                let is_own = (own..own + buffer.len() as u64).contains(&(from + at as u64));
                let rest = buffer[at..read].iter().zip(HIDDEN);
                let is_it = rest.len() == HIDDEN.len() && rest.into_iter().all(|(byte, one)| *byte == !one);
                found += usize::from(is_it && !is_own);
            }
            from += PIECE as u64;
        }
        buffer.fill(0);
    }
    found
}

#[test]
fn of_a_secret_that_a_reload_replaced_no_copy_is_left_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let (secret, other) = (dir.path().join("secret"), dir.path().join("other"));
    write_secret(&secret);
    std::fs::write(&other, "another-secret-of-the-same-kind-and-size").unwrap();
    // A route's secret, a webhook's, the token of the admin API and the pepper of keys, all from this file.
    let routes = |file: &Path| {
        let file = file.display();
        format!(
            "builtin_routes: false\nroutes:\n  - {{ prefix: /openai, upstream: 'https://provider.test', \
             provider: openai, auth: inject, secret_file: '{file}' }}\n"
        )
    };
    let settings = |file: &Path| {
        let file = file.display();
        format!(
            "admin: {{ token_file: '{file}' }}\nidentity: {{ key_pepper_file: '{file}' }}\n\
             budgets: [{{ name: a, window: day, limit: 5 USD }}]\n\
             webhooks: [{{ name: a, url: 'https://hooks.test/', secret_file: '{file}' }}]\n"
        )
    };
    let setup = Setup { routes: routes(&secret), ..Setup::new(&settings(&secret)) };
    setup.run(|system| async move {
        assert!(copies() >= 2, "the search works: a route and a webhook have it");
        system.reload(Some(&routes(&other)), &settings(&other)).unwrap();
        assert_eq!(copies(), 0);
        system.close().await;
    });
}
