"""Import the service once, then fork it, and again whenever it is killed."""

from client import main as service
from client.standby.parent import fork_again_when_killed

if __name__ == "__main__":
    service.configure_logging()
    fork_again_when_killed()
    service.main()
