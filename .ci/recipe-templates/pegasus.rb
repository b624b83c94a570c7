# Homebrew: a formula for a tap, Formula/pegasus.rb. It builds from the source.
class Pegasus < Formula
  desc "Load balancing where providers compete for work"
  homepage "@HOME@"
  url "@URL source.tar.gz@"
  sha256 "@SHA256 source.tar.gz@"
  license any_of: ["MIT", "Apache-2.0"]

  depends_on "rust" => :build

  def install
    system "cargo", "install", *std_cargo_args
    generate_completions_from_executable(bin/"pegasus", "help", "--complete")
    Utils.safe_popen_read(bin/"pegasus", "help", "--topics").each_line do |line|
      page, topic = line.split
      (man/"man#{page[-1]}"/page).write Utils.safe_popen_read(bin/"pegasus", "help", "--man", topic)
    end
    etc.install "conf/pegasus.conf"
    pkgshare.install "conf"
  end

  service do
    run [opt_bin/"pegasus", "monitor", "-c", etc/"pegasus.conf"]
    keep_alive true
    error_log_path var/"log/pegasus.log"
  end

  test do
    assert_match "pegasus @VERSION@", shell_output("#{bin}/pegasus --version")
    assert_match ", 0 failed", shell_output("#{bin}/pegasus demo --seconds 1")
  end
end
