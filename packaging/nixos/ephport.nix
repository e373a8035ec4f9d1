# A NixOS module: services.ephport.enable = true, and policies as in docs/policy.md.
{ config, lib, pkgs, ... }:
let
  cfg = config.services.ephport;
  policy = (pkgs.formats.toml { }).generate "policy.toml" { policy = cfg.policies; };
in
{
  options.services.ephport = {
    enable = lib.mkEnableOption "the guard of source-port policies";
    package = lib.mkOption {
      type = lib.types.package;
      description = "The package with bin/ephport-nft.";
    };
    policies = lib.mkOption {
      type = lib.types.listOf (lib.types.attrsOf lib.types.anything);
      example = [{ name = "default"; to-ports = "49152-61000"; }];
      description = "The policies, in order of precedence.";
    };
  };
  config = lib.mkIf cfg.enable {
    environment.systemPackages = [ cfg.package ];
    systemd.services.ephport-guard = {
      description = "Guard of the source-port policies";
      wantedBy = [ "sysinit.target" ];
      wants = [ "network-pre.target" ];
      before = [ "network-pre.target" "shutdown.target" ];
      after = [ "local-fs.target" "systemd-modules-load.service" "nftables.service" ];
      conflicts = [ "shutdown.target" ];
      unitConfig.DefaultDependencies = false;
      # A new generation of the system has another file, and restarts the guard. The table stays meanwhile.
      serviceConfig = {
        Type = "notify";
        ExecStart = "${cfg.package}/bin/ephport-nft guard ${policy}";
        Restart = "always";
        RestartSec = 1;
        WatchdogSec = 60;
        CapabilityBoundingSet = "CAP_NET_ADMIN";
        RestrictAddressFamilies = "AF_NETLINK AF_UNIX";
        NoNewPrivileges = true;
        ProtectSystem = "strict";
        ProtectHome = true;
        PrivateTmp = true;
        MemoryDenyWriteExecute = true;
        SystemCallFilter = [ "@system-service" "~@privileged @resources" ];
      };
    };
  };
}
