#!/bin/sh
# install.sh BUILD PREFIX [DESTDIR]    Installs what make has built, the header, and what makes them
#                                      easy to find: completions, man page, pkg-config, CMake.
# install.sh --remove PREFIX [DESTDIR]    Removes the same files again.
set -eu
cd "$(dirname "$0")/../.."
build=$1 prefix=$2 root=${3:-}$2
version=$(sed -n 's/^#define PTQ_VERSION "\(.*\)"/\1/p' ptq.h)

put() { # MODE FROM TO: FROM may be - for standard input
    mkdir -p "$(dirname "$root/$3")"
    if [ "$2" = - ]; then cat >"$root/$3.new"; else cp "$2" "$root/$3.new"; fi
    chmod "$1" "$root/$3.new"
    mv -f "$root/$3.new" "$root/$3"
    echo "$root/$3"
}

if [ "$build" = --remove ]; then
    for file in bin/ptq include/ptq.h share/man/man1/ptq.1 \
        share/bash-completion/completions/ptq share/zsh/site-functions/_ptq \
        share/pkgconfig/ptq.pc share/cmake/ptq/ptq-config.cmake \
        share/cmake/ptq/ptq-config-version.cmake; do
        rm -f "$root/$file"
    done
    rmdir "$root/share/cmake/ptq" 2>/dev/null || true
    exit 0
fi

case $prefix in
/*) ;;
*) echo "install.sh: PREFIX must be an absolute path, not '$prefix'" >&2 && exit 1 ;;
esac
put 755 "$build/ptq" bin/ptq
put 644 ptq.h include/ptq.h
sh tools/install/manpage.sh "$build/ptq" | put 644 - share/man/man1/ptq.1
put 644 tools/install/ptq.bash share/bash-completion/completions/ptq
put 644 tools/install/_ptq share/zsh/site-functions/_ptq
put 644 - share/pkgconfig/ptq.pc <<END
prefix=$prefix
includedir=\${prefix}/include

Name: ptq
Description: Post-training quantization of convolutional networks in one C header
Version: $version
Cflags: -I\${includedir}
Libs: -lm
END
put 644 - share/cmake/ptq/ptq-config.cmake <<'END'
# find_package(ptq), then target_link_libraries(NAME ptq::ptq). In one file of NAME write
# #define PTQ_IMPLEMENTATION before #include <ptq.h>.
get_filename_component(ptq_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
if(NOT TARGET ptq::ptq)
    add_library(ptq::ptq INTERFACE IMPORTED)
    set_target_properties(ptq::ptq PROPERTIES
        INTERFACE_INCLUDE_DIRECTORIES "${ptq_prefix}/include")
    if(UNIX)
        set_target_properties(ptq::ptq PROPERTIES INTERFACE_LINK_LIBRARIES m)
    endif()
endif()
END
put 644 - share/cmake/ptq/ptq-config-version.cmake <<END
# Before version 1 a minor version may change the interface.
set(PACKAGE_VERSION $version)
if(PACKAGE_FIND_VERSION_MAJOR EQUAL ${version%%.*} AND NOT PACKAGE_FIND_VERSION VERSION_GREATER PACKAGE_VERSION AND
   (NOT PACKAGE_FIND_VERSION_COUNT GREATER 1 OR PACKAGE_FIND_VERSION_MINOR EQUAL $(echo "$version" | cut -d. -f2)))
    set(PACKAGE_VERSION_COMPATIBLE TRUE)
endif()
if(PACKAGE_FIND_VERSION STREQUAL PACKAGE_VERSION)
    set(PACKAGE_VERSION_EXACT TRUE)
endif()
END
