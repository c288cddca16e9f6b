//! The SMTP client that the MTA claims to talk to.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use milter_protocol::ClientAddress;

/// Port of a client that is described without one.
const PORT: u16 = 50_000;

/// Name and address of an SMTP client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// The name; `[address]` when there is none.
    pub name: String,
    /// The address, if it is known.
    pub address: Option<Address>,
    /// Whether it has begun with STARTTLS.
    pub tls: bool,
}

/// Where an SMTP client connects from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Over the network.
    Ip {
        /// The address.
        address: IpAddr,
        /// The port.
        port: u16,
    },
    /// Over a Unix socket.
    Unix(String),
}

impl Default for Client {
    fn default() -> Self {
        let address = Address::Ip { address: Ipv4Addr::LOCALHOST.into(), port: PORT };
        Client { name: "localhost".to_owned(), address: Some(address), tls: false }
    }
}

impl Client {
    /// The address as the protocol carries it. IPv4 addresses in IPv6 clothes (`::ffff:192.0.2.1`) count as IPv4, as
    /// they do for both MTAs.
    pub fn wire_address(&self) -> Option<ClientAddress<'_>> {
        Some(match self.address.as_ref()? {
            Address::Unix(path) => ClientAddress::Unix { path: path.as_bytes() },
            Address::Ip { address, port } => match address.to_canonical() {
                IpAddr::V4(address) => ClientAddress::Inet { address, port: *port },
                IpAddr::V6(address) => ClientAddress::Inet6 { address, port: *port },
            },
        })
    }

    /// The address as text; `unknown` without one.
    pub fn address_text(&self) -> String {
        match &self.address {
            None => "unknown".to_owned(),
            Some(Address::Unix(path)) => path.clone(),
            Some(Address::Ip { address, .. }) => address.to_canonical().to_string(),
        }
    }

    /// The port, 0 where there is none.
    pub fn port(&self) -> u16 {
        match self.address {
            Some(Address::Ip { port, .. }) => port,
            _ => 0,
        }
    }
}

impl FromStr for Client {
    type Err = String;

    /// `NAME[ADDRESS]`, `NAME[ADDRESS]:PORT`, `ADDRESS`, or `NAME` when the address is not known. An address is IPv4,
    /// IPv6 or the path of a Unix socket.
    fn from_str(text: &str) -> Result<Self, String> {
        const FORMS: &str = "use NAME[ADDRESS], NAME[ADDRESS]:PORT, ADDRESS or NAME";
        if text.is_empty() {
            return Err(format!("the client is empty; {FORMS}"));
        }
        let Some((name, rest)) = text.split_once('[') else {
            let address = parse_address(text, PORT);
            let name = if address.is_some() { format!("[{text}]") } else { text.to_owned() };
            return Ok(Client { name, address, tls: false });
        };
        let (address, port) = match rest.rsplit_once(']') {
            Some((address, "")) => (address, PORT),
            Some((address, port)) => {
                let port = port.strip_prefix(':').and_then(|port| port.parse().ok());
                (address, port.ok_or_else(|| format!("nothing but :PORT may follow the address; {FORMS}"))?)
            }
            None => return Err(format!("the bracket after the address is missing; {FORMS}")),
        };
        let known = parse_address(address, port)
            .ok_or_else(|| format!("\"{address}\" is no IPv4 or IPv6 address and no absolute path; {FORMS}"))?;
        let name = if name.is_empty() { format!("[{address}]") } else { name.to_owned() };
        Ok(Client { name, address: Some(known), tls: false })
    }
}

fn parse_address(text: &str, port: u16) -> Option<Address> {
    if text.starts_with('/') {
        return Some(Address::Unix(text.to_owned()));
    }
    let address = text.strip_prefix("IPv6:").unwrap_or(text).parse().ok()?;
    Some(Address::Ip { address, port })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    #[test]
    fn every_form_is_understood() {
        let client = |text: &str| text.parse::<Client>().unwrap();
        assert_eq!(client("localhost[127.0.0.1]"), Client::default());
        assert_eq!(client("mx.example[192.0.2.1]:25").port(), 25);
        assert_eq!(client("192.0.2.1").name, "[192.0.2.1]");
        assert_eq!(client("[::1]").wire_address().unwrap(), {
            ClientAddress::Inet6 { address: Ipv6Addr::LOCALHOST, port: PORT }
        });
        assert_eq!(client("h[IPv6:2001:db8::1]").address_text(), "2001:db8::1");
        assert_eq!(client("h[/run/x]").wire_address(), Some(ClientAddress::Unix { path: b"/run/x" }));
        assert_eq!(client("localhost").wire_address(), None);
        let mapped = client("h[::ffff:192.0.2.1]");
        assert!(matches!(mapped.wire_address(), Some(ClientAddress::Inet { .. })));
        assert_eq!(mapped.address_text(), "192.0.2.1");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "h[1.2.3]", "h[1.2.3.4", "h[1.2.3.4]x", "h[1.2.3.4]:99999", "h[name]"] {
            assert!(text.parse::<Client>().is_err(), "{text}");
        }
    }
}
