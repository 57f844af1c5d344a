#!/bin/sh
# manpage.sh PTQ >ptq.1    The man page, from what the program PTQ says in its --help: so both
#                          always say the same. What no --help says stands here.
set -eu
ptq=$1

# Text for roff: its escapes, the hyphens of options, and lines that look like requests.
escape() {
    sed 's/\\/\\e/g; s/-/\\-/g; s/^\([.'\'']\)/\\\&\1/'
}

# One --help: "usage: ...", a description in paragraphs, the options, "Example:" and lines.
subcommand() { # NAME
    echo ".SS ptq $1"
    "$ptq" "$1" --help | escape | awk '
        function block(on) {
            if (on != fixed)
                print on ? ".nf" : ".fi"
            fixed = on
        }
        part == "example" { sub(/^  /, ""); print; next }
        /^Example:$/ { print ".PP\nExample:\n.PP\n.nf\n.RS"; part = "example"; next }
        NR == 1 { sub(/^usage: /, ""); print ".nf\n.B " $0; fixed = 1; next }
        !part && /^       ptq/ { sub(/^ */, ""); print ".B " $0; next }
        /^  (\\-[a-z],|   ) \\-\\-/ {
            block(0)
            part = "options"
            match($0, /\\-\\-[a-z\\-]+( [A-Z][^ ]*)?/)
            name = substr($0, 3, RSTART + RLENGTH - 3)
            text = substr($0, RSTART + RLENGTH)
            sub(/^ */, "", name)
            sub(/^ */, "", text)
            print ".TP\n.B " name "\n" text
            next
        }
        part == "options" && /^          / { sub(/^ */, ""); print; next } # goes on
        /^$/ { block(0); if (part != "options") print ".PP"; part = "text"; next }
        /^  / { block(1); print; next }
        { block(0); print }
        END { print ".RE\n.fi" }'
}

version=$("$ptq" --version | cut -d' ' -f2)
cat <<PAGE
.TH PTQ 1 "" "ptq $version" "User Commands"
.SH NAME
ptq \\- post\\-training quantization of convolutional networks
.SH SYNOPSIS
.B ptq
.I SUBCOMMAND
.RI [ OPTIONS ]
.SH DESCRIPTION
A trained float network goes in; one that computes on integers of 8 bits or fewer comes out,
with the evidence of what that did to its accuracy.
Models are safetensors files; images are CIFAR\\-10's binary files, or others in the same form.
.PP
A first session:
.PP
.nf
.RS
ptq quantize \\-\\-model resnet8.safetensors \\-\\-data cifar\\-10\\-batches\\-bin \\-o int8.safetensors
ptq eval \\-\\-model int8.safetensors \\-\\-baseline resnet8.safetensors \\-\\-data cifar\\-10\\-batches\\-bin
ptq report \\-m int8.safetensors \\-b resnet8.safetensors \\-o report.html
.RE
.fi
.SH SUBCOMMANDS
PAGE
for name in $("$ptq" --help | sed -n 's/^  \([a-z]*\)  .*/\1/p'); do subcommand "$name"; done
cat <<'PAGE'
.SH ENVIRONMENT
.TP
.B PTQ_MODEL
the model, where \-\-model is not given
.TP
.B CIFAR10_DIR
the data, where \-\-data is not given
.TP
.B PTQ_ISA
the instruction set to use, instead of the best one of this processor
.TP
.B TERM
progress is shown on standard error where that is a terminal and TERM is not "dumb"
.TP
.B NO_COLOR
where it is set and not empty, nothing is printed in colour
.SH EXIT STATUS
0 on success.
1 on failure, with one line on standard error that says what was wrong and what to do.
2 where the command line itself is wrong, with such a line.
.SH EXAMPLES
Four bits for the weights of the last block, eight elsewhere:
.PP
.nf
.RS
ptq quantize \-\-model resnet8.safetensors \-\-node 'block3.*=w4' \-o small.safetensors
.RE
.fi
.PP
Which layer is to blame, and what would help:
.PP
.nf
.RS
ptq sensitivity \-\-model resnet8.safetensors \-\-weight\-bits 4
.RE
.fi
.PP
A network as C code for a microcontroller:
.PP
.nf
.RS
ptq export \-\-model int8.safetensors \-\-c\-header net.h \-\-standalone
.RE
.fi
PAGE
