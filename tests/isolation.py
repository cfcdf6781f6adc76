"""Commands in a network of their own, where nobody else reaches the ports they open."""

import functools
import subprocess

# TensorFlow's servers listen on every interface, whatever address they are given.
LOOPBACK = (
    "import fcntl, os, socket, struct, sys\n"
    "SIOCSIFFLAGS, IFF_UP = 0x8914, 1\n"
    "with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:\n"
    "    fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack('16sh14x', b'lo', IFF_UP))\n"
    "os.execv(sys.argv[1], sys.argv[1:])"
)


def isolated(command: list[str]) -> list[str]:
    """The command, in a network namespace of its own where the system permits that."""
    python = command[0]
    prefix = ("unshare", "--map-root-user", "--net", python, "-c", LOOPBACK)
    return [*prefix, *command] if _permitted(prefix) else command


@functools.cache
def _permitted(prefix: tuple[str, ...]) -> bool:
    try:
        done = subprocess.run([*prefix, prefix[3], "-c", ""], capture_output=True)
    except OSError:
        return False
    return done.returncode == 0
