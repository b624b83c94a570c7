# Nix: callPackage ./pegasus.nix { }. The programs are static files, which need no library.
{ lib, stdenv, fetchurl }:

let
  version = "@VERSION@";
  archives = {
    x86_64-linux = {
      url = "@URL x86_64-unknown-linux-musl.tar.gz@";
      sha256 = "@SHA256 x86_64-unknown-linux-musl.tar.gz@";
    };
    aarch64-linux = {
      url = "@URL aarch64-unknown-linux-musl.tar.gz@";
      sha256 = "@SHA256 aarch64-unknown-linux-musl.tar.gz@";
    };
    armv7l-linux = {
      url = "@URL armv7-unknown-linux-musleabihf.tar.gz@";
      sha256 = "@SHA256 armv7-unknown-linux-musleabihf.tar.gz@";
    };
    riscv64-linux = {
      url = "@URL riscv64gc-unknown-linux-gnu.tar.gz@";
      sha256 = "@SHA256 riscv64gc-unknown-linux-gnu.tar.gz@";
    };
  };
  system = stdenv.hostPlatform.system;
in
stdenv.mkDerivation {
  pname = "pegasus";
  inherit version;
  src = fetchurl (archives.${system} or (throw "pegasus: no archive for ${system}"));

  dontConfigure = true;
  dontBuild = true;
  dontPatchELF = true;
  installPhase = ''
    runHook preInstall
    install -D pegasus $out/bin/pegasus
    mkdir -p $out/share/pegasus
    cp -r conf $out/share/pegasus/
    $out/bin/pegasus help --topics | while read -r page topic _; do
      mkdir -p $out/share/man/man''${page##*.}
      $out/bin/pegasus help --man "$topic" >$out/share/man/man''${page##*.}/$page
    done
    mkdir -p $out/share/bash-completion/completions
    $out/bin/pegasus help --complete bash >$out/share/bash-completion/completions/pegasus
    mkdir -p $out/share/zsh/site-functions $out/share/fish/vendor_completions.d
    $out/bin/pegasus help --complete zsh >$out/share/zsh/site-functions/_pegasus
    $out/bin/pegasus help --complete fish >$out/share/fish/vendor_completions.d/pegasus.fish
    runHook postInstall
  '';

  meta = {
    description = "Load balancing where providers compete for work";
    homepage = "@HOME@";
    license = with lib.licenses; [ mit asl20 ];
    mainProgram = "pegasus";
    platforms = builtins.attrNames archives;
    sourceProvenance = [ lib.sourceTypes.binaryNativeCode ];
  };
}
