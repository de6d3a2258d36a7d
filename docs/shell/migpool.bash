# Completion of migpool for bash: migpool itself says what may come next.
_migpool() {
    mapfile -t COMPREPLY < <(COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD _MIGPOOL_COMPLETE=complete_bash "$1")
}
complete -o default -F _migpool migpool
