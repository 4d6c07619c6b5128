# Completion of pesto(1) for bash.
_pesto() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} words
    case $prev in
        -C | --clear) words='HOST SPLICE' ;;
        -t | -u | -T | -U | --tcp-ports | --udp-ports | --tcp-ns | --udp-ns) words='auto all none' ;;
        --generation | --timeout | -n | --count) return ;;
        *)
            words='--add --delete --clear --tcp-ports --udp-ports --tcp-ns --udp-ns --keep --show --help --version'
            case ${COMP_WORDS[1]} in
                status) words=--json ;;
                flows) words='--json --count' ;;
                wait) words='--ready --bound --generation --timeout' ;;
                batch) words=--keep ;;
                metrics | resync) words= ;;
            esac
            [ "$COMP_CWORD" -eq 1 ] && words="status flows metrics wait resync batch $words"
            compopt -o default
            ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -F _pesto pesto
