//! Making the tap: the namespace's end of the link.
//!
//! The device is opened in the namespace, because the kernel ties it to the namespace it was opened
//! in. The tap is not persistent: it goes when its last descriptor is closed.

use crate::sys;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use pasta_ipc::types::{IfName, MacAddr, TapInfo, TapOffloads};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

/// Octets of a virtio-net header (`struct virtio_net_hdr`, `linux/virtio_net.h`).
const VNET_HEADER: libc::c_int = 10;

const TCP_OFFLOADS: libc::c_uint =
    libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
const UDP_OFFLOADS: libc::c_uint = libc::TUN_F_USO4 | libc::TUN_F_USO6;

/// Why there is no tap.
#[derive(Debug)]
pub enum TapError {
    /// The device that taps are made with cannot be opened.
    Open(io::Error),
    /// The name is in use.
    NameTaken(IfName),
    /// The kernel refused to make it.
    Make(IfName, io::Error),
    /// The kernel refused a setting.
    Set(&'static str, io::Error),
}

impl fmt::Display for TapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(error) => {
                write!(f, "cannot open /dev/net/tun")?;
                match error.kind() {
                    io::ErrorKind::PermissionDenied => f.write_str(
                        " (it must be readable and writable for this user: mode 0666, as \
                         distributions set it)",
                    ),
                    io::ErrorKind::NotFound => {
                        f.write_str(" (load the kernel's module \"tun\", or make the device)")
                    }
                    _ => Ok(()),
                }
            }
            Self::NameTaken(name) => write!(
                f,
                "cannot make tap \"{name}\": the namespace has an interface of this name (choose \
                 another with -I)"
            ),
            Self::Make(name, _) => write!(f, "cannot make tap \"{name}\""),
            Self::Set(what, _) => write!(f, "cannot set {what} of the tap"),
        }
    }
}

impl std::error::Error for TapError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Open(error) | Self::Make(_, error) | Self::Set(_, error) => Some(error),
            Self::NameTaken(_) => None,
        }
    }
}

/// The device that taps are made with, opened in the namespace.
#[derive(Debug)]
pub struct TunDevice(OwnedFd);

/// A tap, set up completely and still down.
#[derive(Debug)]
pub struct Tap {
    /// The descriptor that frames are read from and written to; non-blocking.
    pub fd: OwnedFd,
    /// What it turned out to be.
    pub info: TapInfo,
}

impl TunDevice {
    /// Opens the device, in the namespace we are in.
    ///
    /// # Errors
    ///
    /// [`TapError::Open`].
    pub fn open() -> Result<Self, TapError> {
        let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let fd = open("/dev/net/tun", flags, Mode::empty());
        fd.map(Self).map_err(|errno| TapError::Open(errno.into()))
    }

    /// Makes a tap called `name`, with the link-layer address `mac` if one is given.
    ///
    /// # Errors
    ///
    /// [`TapError`].
    pub fn make(self, name: &IfName, mac: Option<MacAddr>) -> Result<Tap, TapError> {
        let plain = libc::IFF_TAP | libc::IFF_NO_PI;
        let made = sys::make_tap(&self.0, name, plain | libc::IFF_VNET_HDR);
        let taken = |error: &io::Error| {
            // EINVAL also stands for a link of this name that is no tap.
            let exists = || nix::net::if_::if_nametoindex(name.as_str()).is_ok();
            let in_use = error.raw_os_error() == Some(libc::EBUSY);
            in_use || (error.raw_os_error() == Some(libc::EINVAL) && exists())
        };
        let (made, offloads) = match made {
            Ok(made) => (made, self.offloads()?),
            Err(error) if taken(&error) => return Err(TapError::NameTaken(name.clone())),
            // A kernel without the header still makes a tap that works, segment by segment.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                let made = sys::make_tap(&self.0, name, plain);
                (made.map_err(|error| TapError::Make(name.clone(), error))?, TapOffloads::None)
            }
            Err(error) => return Err(TapError::Make(name.clone(), error)),
        };

        if let Some(mac) = mac {
            sys::set_mac(&self.0, &made, mac)
                .map_err(|error| TapError::Set("link-layer address", error))?;
        }
        let mac =
            sys::mac(&self.0, &made).map_err(|error| TapError::Set("link-layer address", error))?;
        let name = IfName::try_from(made).map_err(|error| {
            TapError::Set("name", io::Error::new(io::ErrorKind::InvalidData, error))
        })?;
        Ok(Tap { fd: self.0, info: TapInfo { name, mac, offloads } })
    }

    fn offloads(&self) -> Result<TapOffloads, TapError> {
        sys::set_vnet_header_size(&self.0, VNET_HEADER)
            .map_err(|error| TapError::Set("header size", error))?;
        match sys::set_offloads(&self.0, TCP_OFFLOADS | UDP_OFFLOADS) {
            Ok(()) => Ok(TapOffloads::TcpAndUdp),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                sys::set_offloads(&self.0, TCP_OFFLOADS)
                    .map_err(|error| TapError::Set("offloads", error))?;
                Ok(TapOffloads::Tcp)
            }
            Err(error) => Err(TapError::Set("offloads", error)),
        }
    }
}
