"""Certificates of a private authority, made with the openssl program."""
import pathlib
import subprocess


def _openssl(*args):
    done = subprocess.run(["openssl", *map(str, args)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class Authority:
    """A certificate authority in FOLDER: `path` is its certificate."""

    def __init__(self, folder, name="ca"):
        self.folder, self.name = pathlib.Path(folder), name
        self.path, self._key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                 "-subj", f"/CN={name}", "-keyout", self._key, "-out", self.path)

    def issue(self, name):
        """A certificate for NAME: {"cert": path, "key": path}."""
        base = self.folder / f"{self.name}-{name}"
        request, names = base.with_suffix(".csr"), base.with_suffix(".ext")
        cert, key = base.with_suffix(".pem"), base.with_suffix(".key")
        names.write_text(f"subjectAltName=DNS:{name}\n")
        _openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                 "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        _openssl("x509", "-req", "-in", request, "-CA", self.path, "-CAkey", self._key, "-CAcreateserial",
                 "-days", "2", "-extfile", names, "-out", cert)
        key.chmod(0o600)
        return {"cert": str(cert), "key": str(key)}
