# For Homebrew. Put the archive of `make dist` beside this file.
class LibmilterRs < Formula
  desc "Mail filter library under OpenDKIM, MIMEDefang and others"
  url "file://#{__dir__}/libmilter-rs-0.1.0.tar.gz"
  license any_of: ["MIT", "Apache-2.0"]

  depends_on "cargo-c" => :build
  depends_on "rust" => :build

  conflicts_with "libmilter", because: "both install the libmilter library and its headers"

  def install
    system "cargo", "cinstall", "--locked", "--release", "--prefix", prefix, "--libdir", lib
    system "cargo", "install", *std_cargo_args(path: "probe")
    generate_completions_from_executable(bin/"milter-probe", "completions")
    man1.install Dir["man/*.1"]
    man3.install Dir["man/*.3"]
    man7.install Dir["man/*.7"]
  end

  test do
    (testpath/"version.c").write <<~C
      #include <libmilter/mfapi.h>
      int main(void)
      {
        unsigned major, minor, patch;
        return smfi_version(&major, &minor, &patch) != MI_SUCCESS || major != 1;
      }
    C
    system ENV.cc, "version.c", "-o", "version", "-I#{include}", "-L#{lib}", "-lmilter"
    system "./version"
  end
end
