//! What cargo cannot be told in Cargo.toml: the name of the shared object, how it is linked, what the compiler can
//! do, and on request the C headers.

use std::env;
use std::process::Command;

/// The name that programs linked with the library ask the dynamic linker for.
const SONAME: &str = "libmilter.so.1.0.1";

/// The release of Rust from which on functions with a variable number of arguments can be defined.
const C_VARIADIC_SINCE: u32 = 99;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if minor_version_of_rustc() >= C_VARIADIC_SINCE {
        println!("cargo:rustc-cfg=c_variadic");
    }
    println!("cargo:rustc-check-cfg=cfg(c_variadic)");
    link();
    #[cfg(feature = "headers")]
    headers::generate();
}

fn link() {
    println!("cargo:rerun-if-env-changed=LIBMILTER_SONAME");
    let target = env::var("CARGO_CFG_TARGET_OS").expect("set by cargo");
    if matches!(target.as_str(), "macos" | "windows") {
        return;
    }
    // Filters that are modules of an interpreter get unloaded, our threads do not.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,relro,-z,now");
    // cargo-c sets the name itself.
    if env::var_os("CARGO_FEATURE_CAPI").is_none() {
        let soname = env::var("LIBMILTER_SONAME").unwrap_or_else(|_| SONAME.into());
        if !soname.is_empty() {
            println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,{soname}");
        }
    }
}

fn minor_version_of_rustc() -> u32 {
    let rustc = env::var_os("RUSTC").expect("set by cargo");
    let output = Command::new(&rustc).arg("--version").output().expect("cargo has run it before");
    let text = String::from_utf8_lossy(&output.stdout);
    // "rustc 1.95.0 (...)"
    let minor = text.split('.').nth(1).and_then(|minor| minor.parse().ok());
    minor.unwrap_or_else(|| panic!("{} --version says {text:?}", rustc.display()))
}

#[cfg(feature = "headers")]
mod headers {
    use cbindgen::{Builder, Config};
    use std::path::Path;
    use std::{env, fs};

    /// The headers and the files of src/capi that each is made from, in the order of their contents.
    const HEADERS: [(&str, &[&str]); 3] = [
        ("mfdef", &["mfdef"]),
        ("mfapi", &["mfapi", "lifecycle", "session", "variadic", "modification"]),
        ("mfext", &["mfext"]),
    ];

    /// Macros whose values are flag words: long, and written in hexadecimal.
    const FLAG_WORDS: [&str; 6] = ["SMFIF_", "SMFIP_", "SMFI_V1_", "SMFI_V2_", "SMFI_CURR_", "SMFI_INTERNAL"];

    /// Writes all headers to OUT_DIR.
    pub(crate) fn generate() {
        let out_dir = env::var("OUT_DIR").expect("set by cargo");
        println!("cargo:rerun-if-changed=cbindgen");
        println!("cargo:rerun-if-changed=src/capi");
        for (header, sources) in HEADERS {
            let config = Config::from_file(format!("cbindgen/{header}.toml")).expect("the configuration is valid");
            let builder = sources.iter().fold(Builder::new().with_config(config), |builder, source| {
                builder.with_src(format!("src/capi/{source}.rs"))
            });
            let mut text = Vec::new();
            builder.generate().expect("src/capi can be expressed in C").write(&mut text);
            let text = String::from_utf8(text).expect("src/capi is UTF-8");
            let text: String = text.lines().map(|line| with_reserved_names(&in_c_terms(line)) + "\n").collect();
            fs::write(Path::new(&out_dir).join(header).with_extension("h"), text).expect("OUT_DIR is writable");
        }
    }

    /// Makes the parameters of a prototype names that no program may define as macros, also where they are documented.
    fn with_reserved_names(line: &str) -> String {
        let Some((function, (parameters, end))) = line
            .split_once('(')
            .filter(|(function, _)| function.contains("LIBMILTER_API "))
            .and_then(|(function, rest)| Some((function, rest.rsplit_once(')')?)))
        else {
            return line.replace("@param ", "@param __");
        };
        let parameters: Vec<String> = parameters
            .split(", ")
            .map(|parameter| match parameter.rfind([' ', '*']) {
                Some(at) => format!("{}__{}", &parameter[..=at], &parameter[at + 1..]),
                // "void" and "..." have no name.
                None => parameter.to_owned(),
            })
            .collect();
        format!("{function}({}){end}", parameters.join(", "))
    }

    /// Gives the number in a `#define` the form that C programs need: flag words get the type long, negative numbers
    /// parentheses.
    fn in_c_terms(line: &str) -> String {
        let parsed = line
            .strip_prefix("#define ")
            .and_then(|definition| definition.split_once(' '))
            .and_then(|(name, value)| Some((name, value.parse::<i64>().ok()?)));
        match parsed {
            Some((name, value)) if FLAG_WORDS.iter().any(|prefix| name.starts_with(prefix)) => {
                format!("#define {name} 0x{value:08X}L")
            }
            Some((name, value)) if value < 0 => format!("#define {name} ({value})"),
            _ => line.trim_end().to_owned(),
        }
    }
}
