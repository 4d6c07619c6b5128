# bash completion for pasta(1)
# Generated from the table of options, see README.md.

_pasta_options='
    --netns
    --userns
    --netns-only
    --no-netns-quit
    --no-pidns
    --no-die-with-parent
    -f --foreground
    -P --pid
    -c --conf-path
    --runas
    --chroot-fallback
    -F --fd
    -h --help
    --version
    --config-net
    -4 --ipv4-only
    -6 --ipv6-only
    -i --interface
    -I --ns-ifname
    -a --address
    -n --netmask
    -g --gateway
    -m --mtu
    --ns-mac-addr
    --no-copy-routes
    --no-copy-addrs
    --follow
    --settle
    --hold
    --linger
    --tunnels
    --bind-wait
    --rename
    -M --mac-addr
    -o --outbound
    --no-map-gw
    --map-host-loopback
    --no-host-loopback
    --map-guest-addr
    --dns-forward
    --dns-host
    --outbound-if4
    --outbound-if6
    --freebind
    -t --tcp-ports
    -u --udp-ports
    -T --tcp-ns
    -U --udp-ns
    --host-lo-to-ns-lo
    --no-splice
    --splice-only
    --no-tcp
    --no-udp
    --no-icmp
    --no-ndp
    --no-dhcp
    --no-dhcpv6
    --no-ra
    -D --dns
    -S --search
    --dhcp-dns
    --dhcp-search
    -H --hostname
    --fqdn
    -d --debug
    --trace
    -q --quiet
    -l --log-file
    --log-size
    --stats
    -p --pcap
    -e --stderr
    --explain
    --json
    --sandbox-report
    --strict-sandbox
    --audit
'

# Sets `kind` to how the value of option $1 is completed; fails if it takes none.
_pasta_value()
{
    case $1 in
        -F|--fd|-I|--ns-ifname|-a|--address|-n|--netmask|-g|--gateway|--ns-mac-addr|--settle|--linger|--bind-wait|-M|--mac-addr|-o|--outbound|--dns-forward|--dns-host|-H|--hostname|--fqdn|--log-size|--stats) kind='' ;;
        -m|--mtu) kind='auto' ;;
        -t|--tcp-ports|-u|--udp-ports|-T|--tcp-ns|-U|--udp-ns) kind='auto all none' ;;
        --rename) kind='auto never' ;;
        --tunnels) kind='avoid allow never' ;;
        --userns|-P|--pid|-c|--conf-path|-l|--log-file|-p|--pcap) kind='file' ;;
        --hold) kind='inf' ;;
        -i|--interface|--outbound-if4|--outbound-if6) kind='interface' ;;
        --netns) kind='namespace' ;;
        --map-host-loopback|--map-guest-addr|-D|--dns|-S|--search) kind='none' ;;
        --follow) kind='roam sticky once off' ;;
        --runas) kind='user' ;;
        *) return 1 ;;
    esac
}

# Completes the value in `cur`.
_pasta_complete_value()
{
    case $kind in
        interface) mapfile -t COMPREPLY < <(compgen -W "$(command ls /sys/class/net)" -- "$cur") ;;
        file) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); compopt -o filenames ;;
        namespace)
            mapfile -t COMPREPLY < <(
                compgen -W "$(command ls /run/netns 2>/dev/null)" -- "$cur"
                compgen -f -- "$cur"
            )
            compopt -o filenames
            ;;
        user) mapfile -t COMPREPLY < <(compgen -u -- "$cur") ;;
        *) mapfile -t COMPREPLY < <(compgen -W "$kind" -- "$cur") ;;
    esac 2>/dev/null
}

# Completes COMMAND and its arguments, which begin at word $1.
_pasta_command()
{
    if declare -F _comp_command_offset >/dev/null; then
        _comp_command_offset "$1"
    elif declare -F _command_offset >/dev/null; then
        _command_offset "$1"
    elif (($1 == COMP_CWORD)); then
        mapfile -t COMPREPLY < <(compgen -c -- "$cur")
    else
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        compopt -o filenames 2>/dev/null
    fi
}

_pasta()
{
    local kind= word letters index=1 cur=${COMP_WORDS[COMP_CWORD]}
    COMPREPLY=()
    while ((index < COMP_CWORD)); do
        word=${COMP_WORDS[index]}
        index=$((index + 1))
        case $word in
            --)
                _pasta_command "$index"
                return
                ;;
            --*)
                _pasta_value "$word" || continue
                # An equals sign is a word of its own.
                if [[ ${COMP_WORDS[index]} == = ]]; then
                    index=$((index + 1))
                    ((index > COMP_CWORD)) && cur=
                fi
                ;;
            -?*)
                letters=${word#-}
                while [[ $letters ]] && ! _pasta_value "-${letters:0:1}"; do
                    letters=${letters:1}
                done
                [[ $letters ]] || continue
                # The value is the rest of the group, or the next word.
                ((${#letters} > 1)) && index=$((index - 1))
                ;;
            *)
                _pasta_command "$((index - 1))"
                return
                ;;
        esac
        if ((index >= COMP_CWORD)); then
            _pasta_complete_value
            return
        fi
        # Colons divide a value into several words.
        index=$((index + 1))
        while ((index <= COMP_CWORD)) && [[ ${COMP_WORDS[index]} == [:=]* ]]; do
            index=$((index + 2))
        done
        ((index > COMP_CWORD)) && return
    done
    case $cur in
        -*) mapfile -t COMPREPLY < <(compgen -W "$_pasta_options" -- "$cur") ;;
        [0-9]*) mapfile -t COMPREPLY < <(cd /proc && compgen -W "$(echo [0-9]*)" -- "$cur") ;;
        *) _pasta_command "$COMP_CWORD" ;;
    esac
}

complete -F _pasta pasta
