//! What tests need of an MTA, whichever it is.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener},
    path::PathBuf,
};

use crate::{Delivery, Sink, SmtpClient, TempDir};

/// The name under which every MTA of a test receives mail.
pub const HOST: &str = "mx.harbour.example";

/// An MTA that takes mail from the test, passes it to a filter, and delivers all of it to the test.
pub trait MailServer {
    /// What every such MTA has.
    fn site(&self) -> &Site;

    /// The next message that it delivers, without what it adds on its own and anew in each run.
    fn next(&self) -> Delivery {
        self.sink().next()
    }

    /// Lets all messages go that a filter has put into quarantine; whether there was one.
    fn release_held(&self) -> bool;

    /// Whether clients may say with XCLIENT where they come from.
    fn takes_xclient(&self) -> bool;

    /// What it has complained about in its log so far: that is where a broken milter connection would show.
    fn complaints(&self) -> Vec<String>;

    /// Where the filter has to listen, unless the test has chosen another place.
    fn filter_socket(&self) -> PathBuf {
        self.directory().join("filter")
    }

    /// A directory for things of the test, as long-lived as this MTA.
    fn directory(&self) -> &TempDir {
        &self.site().directory
    }

    /// Where it delivers to.
    fn sink(&self) -> &Sink {
        &self.site().sink
    }

    /// Opens an SMTP session from 127.0.0.1 and says EHLO.
    ///
    /// # Panics
    ///
    /// When the MTA refuses that.
    fn smtp(&self) -> SmtpClient {
        self.site().connect(Ipv4Addr::LOCALHOST.into())
    }

    /// The same from ::1, where there [is one](has_ipv6).
    ///
    /// # Panics
    ///
    /// When the MTA refuses that.
    fn smtp_over_ipv6(&self) -> SmtpClient {
        self.site().connect(Ipv6Addr::LOCALHOST.into())
    }
}

/// The place of an MTA.
#[derive(Debug)]
pub struct Site {
    sink: Sink,
    directory: TempDir,
    port: u16,
}

impl Site {
    pub(crate) fn new(sink: Sink, directory: TempDir, port: u16) -> Site {
        Site { sink, directory, port }
    }

    fn connect(&self, address: IpAddr) -> SmtpClient {
        let (mut client, greeting) = SmtpClient::connect(address, self.port).expect("the MTA listens");
        assert_eq!(greeting.code(), "220", "{}", greeting.text);
        client.expect("EHLO client.example", "250");
        client
    }
}

/// Whether this machine has an IPv6 loopback address.
#[must_use]
pub fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}
