//! The admin listener: its tokens, its certificates, and what it must have off loopback.
//!
//! Invariants
//! - Off loopback there is no listener without a token.
//! - Certificates and key are read when the configuration is, so a reload brings others or changes nothing.
//!
//! Not here: the list of tokens (`config::tokens`), the listener (`admin`).

use super::{Chosen, Loader, TOKEN_CHARS_MIN, is_loopback};
use crate::admin::tls;
use crate::config::error::{Origin, Wrong};
use crate::config::files::read_secret;
use crate::config::settings::{self as s, Setting};
use crate::config::tokens::TokenFrom;
use crate::config::value::{PathKind, wrong_path};
use crate::config::{Admin, AdminTls};
use crate::credentials::admin::{Scope, Token, TokenHash, Tokens};
use bursar_domain::Label;
use std::net::SocketAddr;
use std::path::PathBuf;
use zeroize::Zeroizing;

/// Largest file of certificates.
const PEM_BYTES_MAX: u64 = 1 << 20;

impl Loader<'_> {
    pub(super) fn admin(&mut self, data: SocketAddr) -> Admin {
        let listen = self.get(&s::ADMIN_LISTEN);
        let shown = listen.value.to_string();
        if listen.value == data && data.port() != 0 {
            let wrong = Wrong::value(&shown, "is also the address of listen", "give each a port of its own");
            self.wrong(&listen.origin, s::ADMIN_LISTEN.path, wrong);
        }
        let loopback = is_loopback(listen.value);
        let file = self.get(&s::ADMIN_TOKEN_FILE);
        let list = self.get(&s::ADMIN_TOKENS);
        if file.is_default() && list.value.0.is_empty() && !loopback {
            let what = "is not a loopback address, so the admin API needs a token";
            let remedy = "listen on 127.0.0.1, or set admin.tokens or admin.token_file";
            self.wrong(&listen.origin, s::ADMIN_LISTEN.path, Wrong::value(&shown, what, remedy));
        }
        let tls = self.admin_tls();
        if !loopback && tls.is_none() {
            self.warnings.push(
                "admin.listen is not loopback and has no TLS: the token crosses the network readable \
                 (set admin.tls.cert_file and admin.tls.key_file)"
                    .to_owned(),
            );
        }
        let mut tokens: Vec<Token> = Vec::new();
        if let Some(path) = &file.value {
            let whole = (Label::fixed("token_file"), vec![Scope::Admin]);
            tokens.extend(self.token_of_file(&file.origin, s::ADMIN_TOKEN_FILE.path, path, whole));
        }
        for entry in list.value.0 {
            let about = (entry.name, entry.scopes);
            match entry.from {
                TokenFrom::Hash(hash) => tokens.push(Token { name: about.0, scopes: about.1, hash }),
                TokenFrom::File(path) => {
                    tokens.extend(self.token_of_file(&list.origin, s::ADMIN_TOKENS.path, &path, about));
                }
            }
        }
        let metrics_public = self.get(&s::ADMIN_METRICS_PUBLIC).value.unwrap_or(loopback);
        // What follows from another setting is as much in force as what was written.
        let shown = self.effective.iter_mut().find(|one| one.path == s::ADMIN_METRICS_PUBLIC.path);
        if let Some(shown) = shown {
            shown.value = metrics_public.to_string();
        }
        Admin {
            listen: listen.value,
            tokens: Tokens::new(tokens),
            metrics_public,
            requests_per_minute: self.get(&s::ADMIN_REQUESTS_PER_MINUTE).value,
            tls,
        }
    }

    fn token_of_file(
        &mut self,
        origin: &Origin,
        key: &str,
        path: &std::path::Path,
        (name, scopes): (Label, Vec<Scope>),
    ) -> Option<Token> {
        let secret = self.secret_file(origin, key, path)?;
        if secret.expose().chars().count() < TOKEN_CHARS_MIN {
            let which =
                if key == s::ADMIN_TOKENS.path { format!(" {:?}", name.as_str()) } else { String::new() };
            self.warnings.push(format!(
                "{key}: the token{which} has fewer than {TOKEN_CHARS_MIN} characters and can be guessed"
            ));
        }
        Some(Token { name, scopes, hash: TokenHash::of(secret.expose().as_bytes()) })
    }

    fn admin_tls(&mut self) -> Option<AdminTls> {
        let cert = self.pem(&s::ADMIN_TLS_CERT_FILE);
        let key = self.pem(&s::ADMIN_TLS_KEY_FILE);
        let clients = self.pem(&s::ADMIN_TLS_CLIENT_CA_FILE);
        let (cert, key) = match (cert, key) {
            (Pem::NotSet, Pem::NotSet) => {
                if !matches!(clients, Pem::NotSet) {
                    let remedy = "set admin.tls.cert_file and admin.tls.key_file too, or remove this";
                    let wrong = Wrong::absent("certificates of clients are checked in TLS only", remedy);
                    self.wrong_pem(&s::ADMIN_TLS_CLIENT_CA_FILE, wrong);
                }
                return None;
            }
            (Pem::NotSet, _) | (_, Pem::NotSet) => {
                let remedy = "set both admin.tls.cert_file and admin.tls.key_file";
                self.wrong_pem(
                    &s::ADMIN_TLS_CERT_FILE,
                    Wrong::absent("TLS needs a certificate and its key", remedy),
                );
                return None;
            }
            (Pem::Text(cert), Pem::Text(key)) => (cert, key),
            _ => return None,
        };
        let clients = match &clients {
            Pem::Text(text) => Some(text.as_str()),
            Pem::NotSet => None,
            Pem::Unusable => return None,
        };
        match tls::server(&cert, &key, clients) {
            Ok(server) => Some(AdminTls { server, asks_clients: clients.is_some() }),
            Err(error) => {
                let setting = match error {
                    tls::TlsError::Key(_) => &s::ADMIN_TLS_KEY_FILE,
                    tls::TlsError::Clients(_) => &s::ADMIN_TLS_CLIENT_CA_FILE,
                    tls::TlsError::Certificate(_) | tls::TlsError::Pair(_) => &s::ADMIN_TLS_CERT_FILE,
                };
                let remedy = "name PEM files that belong together, the certificate of the server first";
                self.wrong_pem(setting, Wrong::absent(&error.to_string(), remedy));
                None
            }
        }
    }

    fn pem(&mut self, setting: &'static Setting<Option<PathBuf>>) -> Pem {
        let chosen: Chosen<Option<PathBuf>> = self.get(setting);
        let Some(path) = chosen.value else { return Pem::NotSet };
        self.watched.push(path.clone());
        match read_secret(&path, PEM_BYTES_MAX) {
            Ok(text) => Pem::Text(text),
            Err(trouble) => {
                let shown = path.display().to_string();
                let wrong = wrong_path(&shown, PathKind::OfSecret, &trouble.to_string(), trouble.remedy());
                self.wrong(&chosen.origin, setting.path, wrong);
                Pem::Unusable
            }
        }
    }

    fn wrong_pem(&mut self, setting: &'static Setting<Option<PathBuf>>, wrong: Wrong) {
        let origin = self.place_of(setting.path);
        self.wrong(&origin, setting.path, wrong);
    }
}

/// A file of certificates or a key.
enum Pem {
    NotSet,
    /// The mistake is told already.
    Unusable,
    Text(Zeroizing<String>),
}
