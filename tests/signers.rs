//! Issuers of tokens for tests. Their keys are made anew in each run and are nobody's.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, KeyPair as _,
};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use std::sync::OnceLock;

/// A key of an issuer, under a name.
#[derive(Clone, Debug)]
pub(crate) struct Signer {
    kid: String,
    algorithm: Algorithm,
    key: EncodingKey,
    /// The public key as it stands in PEM.
    info: Vec<u8>,
}

impl Signer {
    /// On the curve P-256; made in no time.
    pub(crate) fn ec(kid: &str) -> Self {
        Self::on_curve(kid, Algorithm::ES256, &ECDSA_P256_SHA256_FIXED_SIGNING)
    }

    /// On the curve P-384.
    pub(crate) fn ec384(kid: &str) -> Self {
        Self::on_curve(kid, Algorithm::ES384, &ECDSA_P384_SHA384_FIXED_SIGNING)
    }

    fn on_curve(kid: &str, algorithm: Algorithm, curve: &'static EcdsaSigningAlgorithm) -> Self {
        let private = EcdsaKeyPair::generate_pkcs8(curve, &SystemRandom::new()).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(curve, private.as_ref()).unwrap();
        let info: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        let info = info.as_ref().to_vec();
        Self { kid: kid.to_owned(), algorithm, key: EncodingKey::from_ec_der(private.as_ref()), info }
    }

    /// Ed25519.
    pub(crate) fn ed(kid: &str) -> Self {
        let private = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(private.as_ref()).unwrap();
        let info: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        let info = info.as_ref().to_vec();
        let key = EncodingKey::from_ed_der(private.as_ref());
        Self { kid: kid.to_owned(), algorithm: Algorithm::EdDSA, key, info }
    }

    /// RSA: one key for all tests, since it takes long to make.
    pub(crate) fn rsa(kid: &str, algorithm: Algorithm) -> Self {
        static MADE: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
        let (private, info) = MADE.get_or_init(|| {
            let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
            let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
            let info: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
            // What PKCS #8 puts around the key is 26 bytes at this length.
            (private.as_ref()[26..].to_vec(), info.as_ref().to_vec())
        });
        let key = EncodingKey::from_rsa_der(private);
        Self { kid: kid.to_owned(), algorithm, key, info: info.clone() }
    }

    /// The head of its tokens.
    pub(crate) fn header(&self) -> Header {
        Header { kid: Some(self.kid.clone()), ..Header::new(self.algorithm) }
    }

    /// A token with these claims.
    pub(crate) fn token(&self, claims: &Value) -> String {
        self.token_with(&self.header(), claims)
    }

    /// A token with another head.
    pub(crate) fn token_with(&self, header: &Header, claims: &Value) -> String {
        jsonwebtoken::encode(header, claims, &self.key).unwrap()
    }

    /// Its public key as issuers publish it.
    pub(crate) fn jwk(&self) -> Value {
        let mut jwk = match self.algorithm {
            Algorithm::EdDSA => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": base64(&self.info[self.info.len() - 32..]) })
            }
            algorithm => serde_json::to_value(Jwk::from_encoding_key(&self.key, algorithm).unwrap()).unwrap(),
        };
        jwk["kid"] = json!(self.kid);
        jwk
    }

    /// Its public key in PEM.
    pub(crate) fn pem(&self) -> String {
        let body = base64(&self.info).replace('-', "+").replace('_', "/");
        let padded = format!("{body}{}", "=".repeat((4 - body.len() % 4) % 4));
        format!("-----BEGIN PUBLIC KEY-----\n{padded}\n-----END PUBLIC KEY-----\n")
    }
}

/// The set of these keys.
pub(crate) fn jwks(signers: &[&Signer]) -> String {
    json!({ "keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>() }).to_string()
}

/// Base 64 as tokens are written in it.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits =
            three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for place in 0..=three.len() {
            text.push(char::from(DIGITS[(bits >> (18 - 6 * place) & 63) as usize]));
        }
    }
    text
}
