//! The macros that the MTA sends: which at which stage, and what they hold.

use std::collections::BTreeMap;
use std::str::FromStr;

use milter_protocol::{CommandCode, Stage};

use crate::client::Client;
use crate::envelope::Mailbox;
use crate::mta::Mta;

/// Name of the host that the MTA claims to run on.
pub const HOST: &str = "mta.example.org";

/// What is known of a client that speaks TLS and shows no certificate.
const TLS: [(&str, &str); 3] =
    [("{tls_version}", "TLSv1.3"), ("{cipher}", "TLS_AES_256_GCM_SHA384"), ("{cipher_bits}", "256")];

/// Names that Sendmail accepts for one stage (`MAXFILTERMACROS`).
const SENDMAIL_LIST_LIMIT: usize = 50;

/// A macro and its value, as given on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// The name as the protocol spells it: one letter bare, longer names in braces.
    pub name: String,
    /// The value.
    pub value: String,
}

impl FromStr for Definition {
    type Err = String;

    /// `name=value`; braces around the name are optional.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, value)) if !matches!(name, "" | "{}") => {
                Ok(Definition { name: spelt(name), value: value.to_owned() })
            }
            _ => Err("use name=value, as in auth_authen=alice".to_owned()),
        }
    }
}

/// The spelling of a name in the protocol.
fn spelt(name: &str) -> String {
    let inner = name.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')).unwrap_or(name);
    if inner.len() == 1 { inner.to_owned() } else { format!("{{{inner}}}") }
}

/// The lists of names, by stage.
#[derive(Clone, Debug)]
pub struct MacroLists {
    mta: Mta,
    requested: BTreeMap<u32, Vec<String>>,
}

impl MacroLists {
    /// The lists of an MTA after a filter has asked for `requests`.
    pub fn new(mta: Mta, requests: &[(Stage, Vec<u8>)]) -> Self {
        let requested = requests.iter().map(|(stage, names)| {
            let names = String::from_utf8_lossy(names);
            let names = names.split([',', ' ', '\t', '\r', '\n']).filter(|name| !name.is_empty());
            (stage.index(), names.map(str::to_owned).collect())
        });
        let mut requested: BTreeMap<u32, Vec<String>> = requested.collect();
        if mta == Mta::Sendmail {
            requested.values_mut().for_each(|names| names.truncate(SENDMAIL_LIST_LIMIT));
            // Sendmail looks whether the filter asked for macros at the end of headers to decide whose list to use at
            // the end of the message (8.14 to 8.18).
            let eom = requested.remove(&Stage::Eom.index()).unwrap_or_default();
            if requested.contains_key(&Stage::Eoh.index()) {
                requested.insert(Stage::Eom.index(), eom);
            }
        }
        MacroLists { mta, requested }
    }

    /// The names for one stage.
    pub fn names(&self, stage: Stage) -> Vec<&str> {
        match self.requested.get(&stage.index()) {
            Some(names) => names.iter().map(String::as_str).collect(),
            None => self.mta.default_macros(stage).to_vec(),
        }
    }

    fn contain(&self, name: &str) -> bool {
        Stage::ALL.into_iter().any(|stage| self.names(stage).contains(&name))
    }
}

/// What the macros hold at the present moment of a session.
#[derive(Clone, Debug, Default)]
pub struct MacroValues {
    known: BTreeMap<String, Vec<u8>>,
    given: Vec<Definition>,
}

impl MacroValues {
    /// What is known when a client has connected. `given` overrules what the MTA would say.
    pub fn new(mta: Mta, client: &Client, given: &[Definition]) -> Self {
        let mut values = MacroValues { known: BTreeMap::new(), given: given.to_vec() };
        let (daemon, version) = match mta {
            Mta::Postfix => (HOST, "Postfix 3.9.1"),
            Mta::Sendmail => ("MTA", "8.18.1"),
        };
        for (name, value) in [
            ("j", HOST.to_owned()),
            ("v", version.to_owned()),
            ("_", format!("{} [{}]", client.name, client.address_text())),
            ("{daemon_name}", daemon.to_owned()),
            ("{daemon_addr}", "127.0.0.1".to_owned()),
            ("{daemon_port}", "25".to_owned()),
            ("{if_name}", HOST.to_owned()),
            ("{if_addr}", "127.0.0.1".to_owned()),
            ("{client_name}", client.name.clone()),
            ("{client_ptr}", client.name.clone()),
            ("{client_addr}", client.address_text()),
            ("{client_port}", client.port().to_string()),
            ("{client_connections}", "1".to_owned()),
            ("{client_resolve}", "OK".to_owned()),
        ] {
            values.set(name, value.as_bytes());
        }
        if client.tls {
            for (name, value) in TLS {
                values.set(name, value.as_bytes());
            }
        }
        values
    }

    /// Gives a macro a value.
    pub fn set(&mut self, name: &str, value: &[u8]) {
        self.known.insert(name.to_owned(), value.to_vec());
    }

    /// Forgets a macro.
    pub fn unset(&mut self, name: &str) {
        self.known.remove(name);
    }

    /// Gives the three macros of an address: `mail` or `rcpt`.
    pub fn set_mailbox(&mut self, kind: &str, mailbox: &Mailbox) {
        self.set(&format!("{{{kind}_addr}}"), &mailbox.address);
        self.set(&format!("{{{kind}_host}}"), mailbox.domain().unwrap_or(HOST.as_bytes()));
        self.set(&format!("{{{kind}_mailer}}"), if mailbox.domain().is_some() { b"smtp" } else { b"local" });
    }

    fn value(&self, name: &str) -> Option<&[u8]> {
        let name = spelt(name);
        let given = self.given.iter().rfind(|definition| definition.name == name);
        given.map(|definition| definition.value.as_bytes()).or_else(|| self.known.get(&name).map(Vec::as_slice))
    }

    /// Names and values to send before a command. `None`: the MTA sends no macro packet. Names without a value are
    /// left out; names given on the command line that no list contains go with CONNECT.
    pub fn pairs<'a>(
        &'a self,
        mta: Mta,
        lists: &'a MacroLists,
        command: CommandCode,
    ) -> Option<Vec<(&'a [u8], &'a [u8])>> {
        let stage = mta.macro_stage(command)?;
        let mut names = stage.map(|stage| lists.names(stage)).unwrap_or_default();
        if command == CommandCode::Connect {
            names.extend(self.given.iter().map(|given| given.name.as_str()).filter(|name| !lists.contain(name)));
        }
        if names.is_empty() && mta == Mta::Sendmail {
            return None;
        }
        Some(names.into_iter().filter_map(|name| Some((name.as_bytes(), self.value(name)?))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(values: &MacroValues, mta: Mta, lists: &MacroLists, command: CommandCode) -> Option<Vec<String>> {
        let text = |octets: &[u8]| String::from_utf8(octets.to_vec()).unwrap();
        let pairs = values.pairs(mta, lists, command)?;
        Some(pairs.into_iter().map(|(name, value)| format!("{}={}", text(name), text(value))).collect())
    }

    #[test]
    fn definitions_spell_names_as_the_protocol_does() {
        let name = |text: &str| text.parse::<Definition>().unwrap().name;
        assert_eq!(name("i=1"), "i");
        assert_eq!(name("{i}=1"), "i");
        assert_eq!(name("auth_authen=a=b"), "{auth_authen}");
        assert_eq!(name("{auth_authen}="), "{auth_authen}");
        assert!("novalue".parse::<Definition>().is_err());
        assert!("=x".parse::<Definition>().is_err());
    }

    #[test]
    fn lists_decide_and_definitions_overrule() {
        let given = ["j=other", "auth_authen=alice", "{extra}=1"].map(|text| text.parse().unwrap());
        let values = MacroValues::new(Mta::Postfix, &Client::default(), &given);
        let lists = MacroLists::new(Mta::Postfix, &[(Stage::Helo, b"{client_addr}, v  nothing".to_vec())]);
        let at = |command| pairs(&values, Mta::Postfix, &lists, command);
        assert_eq!(
            at(CommandCode::Connect).unwrap(),
            [
                "j=other",
                "{daemon_name}=mta.example.org",
                "{daemon_addr}=127.0.0.1",
                "v=Postfix 3.9.1",
                "_=localhost [127.0.0.1]",
                "{extra}=1"
            ]
        );
        assert_eq!(at(CommandCode::Helo).unwrap(), ["{client_addr}=127.0.0.1", "v=Postfix 3.9.1"]);
        assert_eq!(at(CommandCode::Mail).unwrap(), ["{auth_authen}=alice"]);
        assert_eq!(at(CommandCode::Header).unwrap(), [""; 0], "a packet without pairs");
    }

    #[test]
    fn a_client_with_tls_has_a_cipher() {
        let client = Client { tls: true, ..Client::default() };
        let given = ["cipher_bits=128", "cert_subject=keeper"].map(|text| text.parse().unwrap());
        for mta in [Mta::Postfix, Mta::Sendmail] {
            let values = MacroValues::new(mta, &client, &given);
            assert_eq!(
                pairs(&values, mta, &MacroLists::new(mta, &[]), CommandCode::Helo).unwrap(),
                [
                    "{tls_version}=TLSv1.3",
                    "{cipher}=TLS_AES_256_GCM_SHA384",
                    "{cipher_bits}=128",
                    "{cert_subject}=keeper"
                ]
            );
        }
    }

    #[test]
    fn sendmail_sends_no_packet_for_an_empty_list() {
        let values = MacroValues::new(Mta::Sendmail, &Client::default(), &[]);
        let lists = MacroLists::new(Mta::Sendmail, &[]);
        assert_eq!(pairs(&values, Mta::Sendmail, &lists, CommandCode::Data), None);
        assert_eq!(pairs(&values, Mta::Sendmail, &lists, CommandCode::Header), None);
        assert_eq!(pairs(&values, Mta::Sendmail, &lists, CommandCode::Helo), Some(vec![]));
    }

    #[test]
    fn sendmail_heeds_the_last_list_only_beside_the_one_before() {
        let eom = (Stage::Eom, b"i j".to_vec());
        let names = |mta, requests: &[_]| {
            let lists = MacroLists::new(mta, requests);
            lists.names(Stage::Eom).into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(names(Mta::Postfix, std::slice::from_ref(&eom)), ["i", "j"]);
        assert_eq!(names(Mta::Sendmail, std::slice::from_ref(&eom)), ["{msg_id}"]);
        assert_eq!(names(Mta::Sendmail, &[eom, (Stage::Eoh, b"i".to_vec())]), ["i", "j"]);
        assert!(names(Mta::Sendmail, &[(Stage::Eoh, b"i".to_vec())]).is_empty());
    }
}
