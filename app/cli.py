"""stub for the first slice"""
import sys, uvicorn, os
def main() -> None:
    args = sys.argv[1:]
    for a, b in zip(args, args[1:]):
        if a == "--policy": os.environ["BURSAR_POLICY"] = b
    port = int(args[args.index("--port")+1]) if "--port" in args else 8080
    uvicorn.run("app.main:app_from_env", factory=True, host="127.0.0.1", port=port, http="httptools", loop="uvloop", access_log=False, lifespan="on", log_level="warning")
if __name__ == "__main__":
    main()
