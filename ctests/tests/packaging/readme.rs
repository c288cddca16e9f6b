//! From a fresh Debian to Postfix and OpenDKIM on this library, with the commands of README.md.

use crate::chroot::{Chroot, Network};
use ctests::stage::{make, output};
use ctests::{target_dir, workspace_dir};
use std::fs;
use std::process::Command;

/// The commands that follow the comment `<!-- tested: NAME -->`.
pub(crate) fn commands(name: &str) -> String {
    let readme = fs::read_to_string(workspace_dir().join("README.md")).expect("there is one");
    let opening = format!("<!-- tested: {name} -->\n```sh\n");
    let (_, block) = readme.split_once(&opening).unwrap_or_else(|| panic!("README.md has no {opening}"));
    block.split_once("```\n").expect("the block ends").0.to_owned()
}

/// Passes a mail to the Postfix that a script has started, waits until it is in a mailbox with a signature on it, and
/// prints the name of the package whose libmilter OpenDKIM runs on.
pub(crate) const SIGNED_WITH: &str = r#"
printf 'From: keeper@lighthouse.example\nSubject: lamp oil\n\nTwo barrels left.\n' |
    sendmail -f keeper@lighthouse.example keeper@localhost
tries=0
until grep -qs '^DKIM-Signature: ' /var/mail/keeper; do
    tries=$((tries + 1))
    if [ $tries -gt 300 ]; then
        { echo "no signed mail; the queue and the mailbox:"; postqueue -p; cat /var/mail/keeper; } >&2
        exit 1
    fi
    sleep 0.2
done
grep -q 'd=lighthouse.example;' /var/mail/keeper
rm /var/mail/keeper
file=$(sed -n 's/.* \(\/.*libmilter\.so.*\)/\1/p' /proc/"$(pidof opendkim)"/maps | sort -u)
dpkg -S "$file" | cut -d : -f 1
"#;

#[test]
fn a_fresh_debian_signs_mail_with_this_library() {
    let test = "README's way from a fresh Debian to Postfix and OpenDKIM";
    let Some(debian) = Chroot::new_or_skip(test) else { return };
    output(make().arg("dist"));
    let mut files = fs::read_dir(target_dir()).expect("it exists").filter_map(Result::ok).map(|entry| entry.path());
    let archive = files.find(|path| {
        let name = path.file_name().expect("files have names").to_string_lossy();
        name.starts_with("libmilter-rs-") && name.ends_with(".tar.gz")
    });
    let archive = archive.expect("make has just made it");
    let source = debian.path("/root/libmilter-rs");
    fs::create_dir(&source).expect("root may write there");
    let mut tar = Command::new("tar");
    output(tar.args(["-x", "--strip-components=1", "-f"]).arg(archive).arg("-C").arg(source));
    let run = |network, script: &str| debian.run(network, &format!("cd /root/libmilter-rs\n{script}"));

    run(Network::Machine, "useradd --create-home keeper");
    run(Network::Machine, &commands("build"));
    run(Network::Machine, &commands("install"));
    let signed = run(Network::Loopback, &(commands("sign") + SIGNED_WITH));
    assert_eq!(signed.lines().last(), Some("libmilter-rs1.0.1"), "{signed}");
    // Offline: what apt needs for the way back is among the packages that it has fetched before.
    let signed = run(Network::Loopback, &(commands("back") + SIGNED_WITH));
    assert_eq!(signed.lines().last(), Some("libmilter1.0.1"), "{signed}");
}
