"""Certificates made in the test, with the openssl program."""
import pathlib
import subprocess

from .procs import make_folder

DAYS = "30"


def _openssl(*argv):
    done = subprocess.run(["openssl", *map(str, argv)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class Pair:
    """A certificate and its key, PEM files."""

    def __init__(self, folder, name):
        self.cert = str(folder / f"{name}.crt")
        self.key = str(folder / f"{name}.key")

    def options(self, prefix=""):
        return {f"{prefix}cert": self.cert, f"{prefix}key": self.key}


class Authority:
    """Signs certificates; `ca` is the file with its own."""

    def __init__(self, name, folder=None):
        self.folder = pathlib.Path(folder or make_folder())
        self.name = name
        self._own = Pair(self.folder, f"{name}-ca")
        self.ca = self._own.cert
        _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", DAYS,
                 "-subj", f"/CN={name}", "-keyout", self._own.key, "-out", self._own.cert,
                 "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")

    def issue(self, name, *sans):
        """A certificate for client and server, for the SANS ("IP:127.0.0.1", "DNS:localhost")."""
        pair = Pair(self.folder, f"{self.name}-{name}")
        request, extensions = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        _openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                 "-subj", f"/CN={name}", "-keyout", pair.key, "-out", request)
        extensions.write_text("extendedKeyUsage=serverAuth,clientAuth\n"
                              + (f"subjectAltName={','.join(sans)}\n" if sans else ""))
        _openssl("x509", "-req", "-in", request, "-CA", self._own.cert, "-CAkey", self._own.key, "-CAcreateserial",
                 "-days", DAYS, "-extfile", extensions, "-out", pair.cert)
        pathlib.Path(pair.key).chmod(0o644)  # mariadbd does not run as root
        return pair
