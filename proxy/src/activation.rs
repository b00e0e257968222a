//! Listening sockets that were open before the program began, as systemd's socket activation hands them
//! over (`sd_listen_fds(3)`): `LISTEN_PID` names this process, `LISTEN_FDS` says how many there are, and
//! `LISTEN_FDNAMES` what each is for, `proxy` or `admin`. Without names the first is the proxy's.
//!
//! Invariants
//! - Variables that are meant for another process are passed over, as that function does.
//! - A socket that nobody here can use is refused: whoever connected to it would wait for ever.
//!
//! Not here: what becomes of such a socket at the end (`listen`), what a configuration must say of its
//! address (`config::load`: it is checked like one that was configured).

use crate::listen::Bound;
use std::io;
use std::net::SocketAddr;

/// Most sockets there are uses for.
const SOCKETS_MAX: usize = 2;

/// The sockets that were handed over.
#[derive(Debug, Default)]
pub struct Given {
    /// Where applications send their requests.
    pub proxy: Option<GivenSocket>,
    /// Where the admin API is.
    pub admin: Option<GivenSocket>,
}

/// One of them.
#[derive(Debug)]
pub struct GivenSocket {
    /// Its address.
    pub address: SocketAddr,
    /// The socket.
    pub bound: Bound,
}

/// Why sockets that were handed over cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ActivationError {
    /// Too many of them, or their number is none.
    #[error("LISTEN_FDS is {0:?}: sockets for proxy and admin can be handed over, so 1 or 2")]
    Count(String),
    /// Another number of names than of sockets.
    #[error("LISTEN_FDNAMES has {names} names for {sockets} sockets")]
    Names {
        /// So many names.
        names: usize,
        /// So many sockets.
        sockets: usize,
    },
    /// A name that means nothing.
    #[error(
        "a socket is called {0:?}: its socket unit needs FileDescriptorName=proxy or FileDescriptorName=admin"
    )]
    Name(String),
    /// Two of one name.
    #[error("two sockets are called {0:?}: a socket unit must have one ListenStream")]
    Twice(&'static str),
    /// No TCP socket, or it does not listen.
    #[error("the socket called {name:?} cannot be used: it must be a TCP socket that listens")]
    Socket {
        /// What it was to be for.
        name: &'static str,
        /// What is wrong.
        #[source]
        source: io::Error,
    },
}

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Proxy,
    Admin,
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Admin => "admin",
        }
    }

    fn called(name: &str) -> Result<Self, ActivationError> {
        [Self::Proxy, Self::Admin]
            .into_iter()
            .find(|role| role.name() == name)
            .ok_or_else(|| ActivationError::Name(name.to_owned()))
    }
}

/// Takes the sockets that `variable`, the environment, tells of. Once in the life of a process.
///
/// # Errors
/// Names the variable or socket that cannot be used, with what to write instead.
pub fn take(variable: &dyn Fn(&str) -> Option<String>) -> Result<Given, ActivationError> {
    let told = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"].map(variable);
    let roles = roles(told.each_ref().map(Option::as_deref), std::process::id())?;
    let mut given = Given::default();
    if roles.is_empty() {
        return Ok(given);
    }
    let mut sockets = listenfd::ListenFd::from_env();
    for (place, role) in roles.into_iter().enumerate() {
        let name = role.name();
        let socket = |source| ActivationError::Socket { name, source };
        let missing = || socket(io::ErrorKind::NotFound.into());
        let listener = sockets.take_tcp_listener(place).map_err(socket)?.ok_or_else(missing)?;
        let address = listener.local_addr().map_err(socket)?;
        let bound = Bound::given(listener).map_err(socket)?;
        let slot = match role {
            Role::Proxy => &mut given.proxy,
            Role::Admin => &mut given.admin,
        };
        *slot = Some(GivenSocket { address, bound });
    }
    Ok(given)
}

/// What each socket is for; none when there are none for the process `own`.
fn roles([pid, count, names]: [Option<&str>; 3], own: u32) -> Result<Vec<Role>, ActivationError> {
    let (Some(pid), Some(count)) = (pid, count) else { return Ok(Vec::new()) };
    if pid.parse() != Ok(own) {
        return Ok(Vec::new());
    }
    let sockets = match count.parse() {
        Ok(0) => return Ok(Vec::new()),
        Ok(sockets) if sockets <= SOCKETS_MAX => sockets,
        _ => return Err(ActivationError::Count(count.to_owned())),
    };
    let roles: Vec<Role> = match names {
        None => [Role::Proxy, Role::Admin].into_iter().take(sockets).collect(),
        Some(names) => names.split(':').map(Role::called).collect::<Result<_, _>>()?,
    };
    match roles.as_slice() {
        all if all.len() != sockets => Err(ActivationError::Names { names: all.len(), sockets }),
        [one, two] if one == two => Err(ActivationError::Twice(one.name())),
        _ => Ok(roles),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Role::{Admin, Proxy};

    fn check(told: [Option<&str>; 3], expected: Result<&[Role], &str>) {
        let found = roles(told, 7).map_err(|error| error.to_string());
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{told:?}"),
            (Err(said), Err(part)) => assert!(said.contains(part), "{told:?}: {said}"),
            (found, _) => panic!("{told:?}: {found:?}"),
        }
    }

    #[test]
    fn names_say_what_sockets_are_for_in_any_order() {
        check([Some("7"), Some("2"), Some("proxy:admin")], Ok(&[Proxy, Admin]));
        check([Some("7"), Some("2"), Some("admin:proxy")], Ok(&[Admin, Proxy]));
        check([Some("7"), Some("1"), Some("admin")], Ok(&[Admin]));
        check([Some("7"), Some("1"), Some("proxy")], Ok(&[Proxy]));
    }

    #[test]
    fn without_names_the_first_is_the_proxys() {
        check([Some("7"), Some("1"), None], Ok(&[Proxy]));
        check([Some("7"), Some("2"), None], Ok(&[Proxy, Admin]));
    }

    #[test]
    fn what_is_meant_for_nobody_or_somebody_else_is_passed_over() {
        check([None, None, None], Ok(&[]));
        check([Some("8"), Some("2"), Some("proxy:admin")], Ok(&[]));
        check([Some("x"), Some("2"), None], Ok(&[]));
        check([None, Some("1"), None], Ok(&[]));
        check([Some("7"), None, None], Ok(&[]));
        check([Some("7"), Some("0"), None], Ok(&[]));
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_what_to_write() {
        check([Some("7"), Some("3"), None], Err("1 or 2"));
        check([Some("7"), Some("99999999999999999999"), None], Err("1 or 2"));
        check([Some("7"), Some("-1"), None], Err("1 or 2"));
        check([Some("7"), Some("1"), Some("bursar.socket")], Err("FileDescriptorName=proxy"));
        check([Some("7"), Some("2"), Some("proxy")], Err("1 names for 2 sockets"));
        check([Some("7"), Some("1"), Some("proxy:admin")], Err("2 names for 1 sockets"));
        check([Some("7"), Some("2"), Some("admin:admin")], Err("two sockets are called \"admin\""));
    }
}
