"""Files as the kubelet mounts a Secret or a ConfigMap."""


class Mount:
    """A folder of links: what is in it changes all at once, by one of them."""

    def __init__(self, folder):
        self.folder = folder
        self.count = 0
        folder.mkdir(parents=True)

    def put(self, files):
        self.count += 1
        version = self.folder / f"..v{self.count}"
        version.mkdir()
        for name, text in files.items():
            (version / name).write_text(text)
            link = self.folder / name
            if not link.is_symlink():
                link.symlink_to(f"..data/{name}")
        (self.folder / "..new").symlink_to(version.name)
        (self.folder / "..new").rename(self.folder / "..data")

    def path(self, name):
        return str(self.folder / name)
