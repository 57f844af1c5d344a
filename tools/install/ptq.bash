# Completion of ptq for bash. Subcommands, options and presets come from ptq's own --help, so that what
# is offered is what the installed program understands.

# Words that an option's value is chosen from; nothing where it is free.
_ptq_values() { # PROGRAM SUBCOMMAND OPTION
    case $3 in
    --preset | --presets)
        "$1" quantize --help | sed -n '/^usage/,/^  -m/s/^  \([a-z][a-z0-9-]*\)  .*/\1/p'
        [ "$3" = --preset ] || echo all
        ;;
    --figure) "$1" report --help | sed -n '/^usage/,/^  -m/s/^  \([a-z][a-z0-9-]*\)  .*/\1/p' ;;
    --isa)
        if [ "$2" = train ]; then
            echo plain avx2 avx512
        else
            echo auto scalar sse2 avx2 avxvnni avx512 avx512vnni amx neon neondot wasm
        fi
        ;;
    --weight-range) echo minmax mse ;;
    --activation-range) echo minmax average histogram percentile entropy mse ;;
    --activation-ranges) echo minmax average histogram percentile entropy mse all ;;
    --activation-type) echo u8 s8 ;;
    --weight-bits | --activation-bits) echo 2 3 4 5 6 7 8 ;;
    --scales) echo channel tensor ;;
    --rounding) echo nearest learned ;;
    --refit) echo never always ;;
    --bias-correction) echo none empirical analytic ;;
    --optimizer) echo sgd adamw ;;
    --form) echo qdq qoperator ;;
    esac
}

# The options of a subcommand, or what its help shows behind one: "--model MODEL" or "--fuse".
_ptq_options() { # PROGRAM SUBCOMMAND
    "$1" "$2" --help | sed -n 's/^  \(-[a-z],\|   \) \(--[a-z-]*\( [A-Z][^ ]*\)\{0,1\}\).*/\2/p'
}

# The long spelling of a short option.
_ptq_long() { # PROGRAM SUBCOMMAND OPTION
    case $3 in
    -?) "$1" "$2" --help | sed -n "s/^  $3, \(--[a-z-]*\).*/\1/p" ;;
    *) echo "$3" ;;
    esac
}

_ptq() {
    local program=${1/#\~/$HOME} word=$2 option value
    local subcommand=${COMP_WORDS[1]}

    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "$("$program" --help | sed -n 's/^  \([a-z]*\)  .*/\1/p')
            --help --version" -- "$word"))
        return
    fi
    option=$(_ptq_long "$program" "$subcommand" "$3")
    value=$(_ptq_options "$program" "$subcommand" | sed -n "s/^$option //p")
    case $value in
    '')
        case $word in
        -*) COMPREPLY=($(compgen -W "$(_ptq_options "$program" "$subcommand" | sed 's/ .*//')" \
            -- "$word")) ;;
        *)
            compopt -o filenames 2>/dev/null
            COMPREPLY=($(compgen -f -- "$word"))
            ;;
        esac
        ;;
    MODEL | FLOATMODEL | QUANTIZED | DIR | FILE | OUT*)
        compopt -o filenames 2>/dev/null
        COMPREPLY=($(compgen -f -- "$word"))
        ;;
    *) COMPREPLY=($(compgen -W "$(_ptq_values "$program" "$subcommand" "$option")" -- "$word")) ;;
    esac
}

complete -F _ptq ptq
